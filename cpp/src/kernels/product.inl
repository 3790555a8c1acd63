// The dense product over the tile, and the packing of every matrix. Included by isa.inl, once per ISA.

namespace seqcore::SEQCORE_ISA {
namespace {

std::int64_t packed_product_size(std::int64_t k, std::int64_t n) { return k * packed_columns(n); }

// Rows k of one panel, `width` wide, of which `columns` are there.
void pack_panel(const float* w, std::ptrdiff_t k_stride, std::ptrdiff_t n_stride, std::int64_t k, std::int64_t columns,
                std::int64_t width, float* out) {
  if (n_stride == 1) {
    for (std::int64_t i = 0; i < k; ++i)
      for (std::int64_t j = 0; j < width; j += W)
        store(out + i * width + j, columns > j ? load_upto(w + i * k_stride + j, columns - j) : zero());
    return;
  }
  std::int64_t i = 0;
  for (; i + W <= k && k_stride == 1; i += W)
    for (std::int64_t j = 0; j < width; j += W) {
      if (j + W <= columns) {
        transpose(w + i + j * n_stride, n_stride, out + i * width + j, width);
        continue;
      }
      for (std::int64_t n = j; n < j + W; ++n)
        for (std::int64_t r = i; r < i + W; ++r) out[r * width + n] = n < columns ? w[r + n * n_stride] : 0.0f;
    }
  for (; i < k; ++i)
    for (std::int64_t j = 0; j < width; ++j) out[i * width + j] = j < columns ? w[i * k_stride + j * n_stride] : 0.0f;
}

void pack_product(const float* w, std::ptrdiff_t k_stride, std::ptrdiff_t n_stride, std::int64_t k, std::int64_t n,
                  float* packed) {
  for (std::int64_t j = 0; j < n; j += kPanel) {
    const std::int64_t width = least(kPanel, packed_columns(n) - j);
    pack_panel(w + j * n_stride, k_stride, n_stride, k, n - j, width, packed + j * k);
  }
}

// What becomes of the chains of some rows and columns n0 .. n0 + width, which lie in C already or at `chains`.
void product_out(const ProductArgs& p, float* chains, std::ptrdiff_t row, std::int64_t rows, std::int64_t width,
                 std::int64_t n0, const std::ptrdiff_t* c, const std::ptrdiff_t* z, const std::ptrdiff_t* scale) {
  for (std::int64_t m = 0; m < rows; ++m)
    for (std::int64_t j = 0; j < width; j += W) {
      const std::int64_t left = p.n - n0 - j;
      float* out = p.c.data + c[m] + n0 + j;
      vec v = load(chains + m * row + j);
      if (p.z.data) store_upto(p.z.data + z[m] + n0 + j, v, left);
      if (p.scale)
        v = add(load_upto(out, left), mul(load_upto(p.scale + scale[m] + n0 + j, left), v));
      else if (p.activation != Activation::linear)
        v = activate(p.activation, v);
      store_upto(out, v, left);
    }
}

void product(const ProductArgs& p) {
  std::ptrdiff_t a[4][kRowBlock], c[kRowBlock], z[kRowBlock], scale[kRowBlock];
  alignas(64) float space[kRowBlock * kPanel], start[4 * kPanel];
  split_evenly(p.m, kRowBlock, [&](std::int64_t first, std::int64_t count) {
    RowCursor cursor(p.batch, p.rows ? p.rows[first] : p.row_begin + first);
    bool even = true;  // rows of C are evenly spaced
    for (std::int64_t i = 0; i < count; ++i) {
      cursor.seek(p.rows ? p.rows[first + i] : p.row_begin + first + i);
      for (int s = 0; s < p.segments; ++s) a[s][i] = cursor.in(p.a[s].a.step, p.a[s].a.row);
      c[i] = cursor.in(p.c.step, p.c.row);
      z[i] = cursor.in(p.z.step, p.z.row);
      scale[i] = cursor.in(0, p.scale_row);
      even = even && (i < 2 || c[i] - c[i - 1] == c[1] - c[0]);
    }
    const bool plain = !p.z.data && !p.scale && p.activation == Activation::linear;
    const std::int64_t most = (count * 4 <= kRowBlock ? 4 : 1) * kPanel;  // what `space` holds
    for (std::int64_t n0 = 0; n0 < p.n; n0 += most) {
      const std::int64_t width = least(most, packed_columns(p.n) - n0);
      const bool direct = even && !p.scale && n0 + width <= p.n;
      Product t;
      t.segments = p.segments;
      for (int s = 0; s < p.segments; ++s) t.a[s] = {p.a[s].a.data, a[s], 1, p.a[s].k, p.a[s].packed + n0 * p.a[s].k};
      t.out = direct ? p.c.data + c[0] + n0 : space;
      t.out_row = !direct ? width : count > 1 ? c[1] - c[0] : 0;
      if (p.init == Init::accumulate) {
        for (std::int64_t m = 0; m < count && !direct; ++m)
          for (std::int64_t j = 0; j < width; j += W)
            store(space + m * width + j, load_upto(p.c.data + c[m] + n0 + j, p.n - n0 - j));
        t.init = t.out;
        t.init_row = t.out_row;
      } else {
        for (std::int64_t j = 0; j < width; j += W)
          store(start + j, p.init == Init::bias ? load_upto(p.bias + n0 + j, p.n - n0 - j) : zero());
        t.init = start;
        t.init_row = 0;
      }
      multiply(t, count, width / W);
      if (!direct || !plain) product_out(p, t.out, t.out_row, count, width, n0, c, z, scale);
    }
  });
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA

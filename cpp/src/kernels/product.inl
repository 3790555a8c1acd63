// The dense product over the tile, and the packing of its matrices. Included by isa.inl, once per ISA.

namespace seqcore::SEQCORE_ISA {
namespace {

std::int64_t packed_product_size(std::int64_t k, std::int64_t n, Precision precision) {
  return packed_matrix_size(precision, k, packed_columns(n));
}

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

// Of n panels or groups, those that a call packs.
struct Stretch {
  std::int64_t begin, end;
};
SEQCORE_INLINE Stretch stretch_of(std::int64_t n, Packing packing) {
  return {n * packing.part / packing.parts, n * (packing.part + 1) / packing.parts};
}

void pack_product(const float* w, std::ptrdiff_t k_stride, std::ptrdiff_t n_stride, std::int64_t k, std::int64_t n,
                  Packing packing, float* packed) {
  const std::int64_t columns = packed_columns(n);
  float* const to = packed + words_at(packing.precision, columns);
  const Stretch mine = stretch_of((n + kPanel - 1) / kPanel, packing);
  for (std::int64_t panel = mine.begin; panel < mine.end; ++panel) {
    const std::int64_t j = panel * kPanel, width = least(kPanel, columns - j);
    if (packing.precision == Precision::float32) {
      pack_panel(w + j * n_stride, k_stride, n_stride, k, n - j, width, to + j * k);
    } else {
      const auto at = [=](std::int64_t i, std::int64_t c) {
        return j + c < n ? w[i * k_stride + (j + c) * n_stride] : 0.0f;
      };
      pack_words(packing, k, width, at, packed + j, packed + columns + j, to + j * words(packing.precision, k));
    }
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

// Scratch of a product in reduced precision: the rows of a block in words, their scales, int32 sums.
struct ProductScratch {
  std::int64_t row, scales, sums, end;
  ProductScratch(std::int64_t k, std::int64_t rows, Precision precision) {
    row = encoded_row(precision, k);
    scales = rows * row;
    sums = scales + pad(rows);
    end = sums + (precision == Precision::int8 ? kChains : 0);
  }
};
std::int64_t product_scratch(std::int64_t k, std::int64_t m, Precision precision) {
  return precision == Precision::float32 ? 0 : pad(ProductScratch(k, least(m, kRowBlock), precision).end);
}

void product(const ProductArgs& p) {
  std::ptrdiff_t a[4][kRowBlock], c[kRowBlock], z[kRowBlock], scale[kRowBlock];
  alignas(64) float space[kChains], start[4 * kPanel];
  const std::int64_t columns = packed_columns(p.n);
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
    Product t;
    t.segments = p.segments;
    t.far = p.segments * p.a[0].k * columns * 4 >= kFarWeights;
    for (int s = 0; s < p.segments; ++s) t.a[s] = {p.a[s].a.data, a[s], p.a[s].k, nullptr};
    const ProductScratch words_space(p.a[0].k, count, p.precision);
    if (p.precision != Precision::float32) {
      for (std::int64_t i = 0; i < count; ++i) {
        encode(p.precision, p.a[0].a.data + a[0][i], p.a[0].k, p.scratch + i * words_space.row,
               p.scratch + words_space.scales + i);
        a[0][i] = i * words_space.row;
      }
      t.a[0] = {p.scratch, a[0], words(p.precision, p.a[0].k), nullptr};
    }
    const bool plain = !p.z.data && !p.scale && p.activation == Activation::linear;
    const std::int64_t most = columns_at_once(count);
    for (std::int64_t n0 = p.n_begin; n0 < p.n_end; n0 += most) {
      const std::int64_t width = least(most, packed_columns(p.n_end - n0));
      const bool direct = even && !p.scale && n0 + width <= p.n;
      for (int s = 0; s < p.segments; ++s) t.a[s].w = p.a[s].packed + words_at(p.precision, columns) + n0 * t.a[s].k;
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
      if (p.precision == Precision::float32) {
        multiply<Float32>(t, count, width / W);
      } else if (p.precision == Precision::bfloat16) {
        p.dot->bfloat16(t, count, width / W);
      } else {
        Product sums = t;
        sums.init = p.a[0].packed + columns + n0;
        sums.init_row = 0;
        sums.out = p.scratch + words_space.sums;
        sums.out_row = width;
        p.dot->int8(sums, count, width / W);
        add_scaled(count, width, sums.out, p.scratch + words_space.scales, p.a[0].packed + n0, t.init, t.init_row,
                   t.out, t.out_row);
      }
      if (!direct || !plain) product_out(p, t.out, t.out_row, count, width, n0, c, z, scale);
    }
  });
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA

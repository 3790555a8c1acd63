// Products over the rows of a sequence and the sums over them that are weight gradients, in parallel and polled. Who may
// use it: layers.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"
#include "layers/run.h"

namespace seqcore {

// The rows that take part, all (list null) or those listed. For sums they come in bands: the rows of a few samples each, so
// that a thread may sum those that it made.
struct RowList {
  const std::int32_t* list = nullptr;
  std::int64_t n = 0;
  int bands = 1;
  const std::int64_t* ends = nullptr;  // [bands], in the list; null: one band
  std::int64_t begin(int band) const { return band == 0 ? 0 : end(band - 1); }
  std::int64_t end(int band) const { return ends ? ends[band] : n; }
};
// Rows t*batch + b with mask[t*mask_step + b] != 0, ascending; a null mask gives all.
RowList valid_rows(Run& run, const std::uint8_t* mask, std::ptrdiff_t mask_step, std::int64_t steps,
                   std::int64_t batch);
// How the samples of a batch are banded: a function of batch and steps alone. A power of two of bands, of two tiles' samples
// or a block of rows at least, two of a tile's.
struct Bands {
  Bands(std::int64_t samples, std::int64_t steps);
  std::int64_t begin(std::int64_t band) const { return batch * band / count; }
  std::int64_t batch, steps, count;
};
// The same, band by band, ascending in each: of the samples of the bands from `first` to `last`, as a batch of their own.
RowList banded_rows(Run& run, const std::uint8_t* mask, std::ptrdiff_t mask_step, const Bands& bands,
                    std::int64_t first, std::int64_t last);
// The rows on which a gradient is not zero by promise (Tensor::mask).
RowList valid_rows(Run& run, const Tensor& dy);

// Kernels::product and Kernels::grad over the rows of some parts of a batch, which differ in their rows and where these lie.
// They fill in row_begin, m, rows, scratch, what the product's precision needs and, for the gradient, tiles and accumulate.
// The gradient: each band a sum as Kernels::grad has it, the bands' added in order; a band of one block is added as a block.
// `threads`: for so many it is worth it; 0: that is found out.
struct ProductPart {
  ProductArgs args;
  RowList rows;
};
void product(const ProductPart* parts, int count, Run& run);
inline void product(const ProductArgs& args, const RowList& rows, Run& run) {
  const ProductPart whole{args, rows};
  product(&whole, 1, run);
}
struct GradPart {
  GradArgs args;
  RowList rows;
};
void weight_gradient(const GradPart* parts, int count, Run& run, int threads = 0);
inline void weight_gradient(const GradArgs& args, const RowList& rows, Run& run) {
  const GradPart whole{args, rows};
  weight_gradient(&whole, 1, run);
}

}  // namespace seqcore

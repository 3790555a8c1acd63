// The kernels: everything that does arithmetic on arrays, behind one table of function pointers per ISA.
//
// Only pointers, integers and floats cross this border. The bodies are the .inl files beside this header; they are
// written once against the vector type of simd/ and compiled once per ISA (isa_*.cc). Whoever needs a kernel takes
// `const Kernels& k = kernels();` (dispatch.h), never an ISA by name.
//
// Conventions
//   B T I H G     batch, time, input, hidden, gates.
//   time-major    a sequence is [T][B][features]: row r = t*B + b.
//   padded        every internal buffer that a kernel writes has its last axis padded to pad(n) floats and starts on
//                 64 bytes. What the padding holds is unspecified but finite or not, it reaches no result.
//   One order     every output element is one chain of fused multiply-adds in an order that depends on the problem
//                 alone (ARCHITECTURE.md). No kernel's result depends on how its rows or columns were split into calls.
//   No kernel allocates, locks, throws or calls libm. MXCSR/FPCR: the caller holds a FlushGuard (parallel.h does).
#pragma once

#include <cstddef>
#include <cstdint>

namespace seqcore {

inline constexpr std::int64_t kPad = 16;         // floats; a multiple of every ISA's vector width
inline constexpr std::int64_t kGradBlock = 256;  // rows summed in one chain by the weight gradients
inline constexpr std::int64_t kSumBlock = 4096;  // elements whose sum is one float in sum_squares and sum_abs
inline constexpr std::int64_t pad(std::int64_t n) { return (n + kPad - 1) / kPad * kPad; }

// Element-wise activations, and the row-wise ones (from softmax on) last. One list: enum, names, tests.
// X(name)
// clang-format off
#define SEQCORE_ACTIVATIONS(X)                                                                              \
  X(linear) X(relu) X(leaky_relu) X(relu6) X(elu) X(selu) X(softplus) X(softsign) X(silu) X(gelu) X(tanh)   \
  X(sigmoid) X(exponential) X(hard_sigmoid) X(hard_silu) X(hard_tanh) X(mish) X(log_sigmoid) X(tanh_shrink) \
  X(soft_shrink) X(hard_shrink) X(squareplus) X(sparse_plus) X(sparse_sigmoid) X(softmax) X(log_softmax) \
  X(sparsemax)
// clang-format on
enum class Activation : std::int32_t {
#define X(name) name,
  SEQCORE_ACTIVATIONS(X)
#undef X
};
#define X(name) +1
inline constexpr int kActivations = 0 SEQCORE_ACTIVATIONS(X);
#undef X
inline constexpr bool is_rowwise(Activation a) { return a >= Activation::softmax; }
// Whether the derivative cannot be had from the output, so that a cache must keep the pre-activation instead.
inline constexpr bool needs_input(Activation a) {
  return a == Activation::silu || a == Activation::gelu || a == Activation::hard_silu || a == Activation::mish ||
         a == Activation::tanh_shrink || a == Activation::squareplus || a == Activation::sparse_plus;
}

// Rows addressed in two levels: row r = t*B + b lies at data + t*step + b*row. A step may be negative (go_backwards).
struct Rows {
  float* data;
  std::ptrdiff_t step;
  std::ptrdiff_t row;
};
struct ConstRows {
  const float* data;
  std::ptrdiff_t step;
  std::ptrdiff_t row;
};

// ------------------------------------------------------------------------------------- precisions of packed weights

// bfloat16 and int8 weights meet inputs of the same kind: bfloat16 rounded to nearest, int8 scaled by each row's largest
// element (and each column's, for the weights), both symmetric, in [-127, 127]. Sums are float32 and int32. int8's are the
// same on every ISA, and so is all that follows from them.
enum class Precision : std::int32_t { float32, bfloat16, int8 };
constexpr const char* kPrecisionNames[] = {"float32", "bfloat16", "int8"};
// Elements of a row go into 32-bit words, the first in the lowest bits: 1, 2 or 4 to a word.
inline constexpr std::int64_t words(Precision p, std::int64_t k) {
  return p == Precision::float32 ? k : p == Precision::bfloat16 ? (k + 1) / 2 : (k + 3) / 4;
}

// What tile.inl multiplies: `segments` stretches of the summed index, in order. Between kernels of one ISA only.
struct Operand {                 // rows of one stretch, and the packed columns they meet
  const float* base;             // floats or words
  const std::ptrdiff_t* offset;  // of each row; null where the rows of a tile are interleaved, [k][rows]
  std::int64_t k;                // floats or words
  const float* w;
  const float* after = nullptr;  // what is read after the last panel; or null
  const float* next = nullptr;   // what is fetched meanwhile; or null: the next panel
};
// What is needed after some products, fetched while they are made: pieces of rows, a few rows before each tile.
struct Soon {
  struct Piece {
    const float* at;  // of row r at + r*row
    std::ptrdiff_t row;
  } piece[6];
  int pieces, lines;            // lines of each piece
  std::int64_t rows, row, end;  // so many at a time, from `row` to `end`
};
struct Product {
  int segments;
  Operand a[4];
  const float* init;  // row m at init + m*init_row
  std::ptrdiff_t init_row;
  float* out;  // row m at out + m*out_row; may be init
  std::ptrdiff_t out_row;
  Soon* soon = nullptr;
  bool add = false;  // of interleaved rows: to what out holds, once the chain is made
  bool far = false;  // weights that do not stay in an L2: what is needed next is fetched, a part by each tile
  // Of `next` a tile fetches so many floats with each number of the summed index, after those of `part` tiles before it.
  std::ptrdiff_t ahead = 0, part = 0;
};
// One row over two sides, the input and the state, by two strips of columns side by side. `twice`: strip 1 is two chains,
// one over each side, else one over both.
struct RowProduct {
  const float* a[2];     // of each side: floats or words
  std::int64_t k[2];     // how many; or 0
  const float* w[2][2];  // the packed columns of [side][strip]
  const float* init[3];  // of strip 0, strip 1, and strip 1 again
  float* out[3];
  int vectors[2];  // of columns, of each strip; of strip 1 maybe none
  bool twice;
  const float* scale[2];  // int8: of the row, on each side
};
using RowTile = void (*)(const RowProduct& t);

// Products of words: rows are evenly spaced and zero from k up to the next multiple of kPad words. int8's init
// and out are int32. dot4 instructions that take unsigned inputs add `byte_offset` to them: packed weights bring the init
// that takes it away again, and which nothing else may be.
struct Dot {
  void (*bfloat16)(const Product& t, std::int64_t m, std::int64_t vectors);
  void (*int8)(const Product& t, std::int64_t m, std::int64_t vectors);
  RowTile (*bfloat16_row)(const RowProduct& t);  // what makes such ones
  RowTile (*int8_row)(const RowProduct& t);
  std::int32_t byte_offset;
  const char* bfloat16_by;  // what computes them, for show_config
  const char* int8_by;
};

// How matrices are packed. A product's weights must be packed for its precision and its Dot. Several calls may pack one
// matrix together: call `part` of `parts` packs its share of the panels, or of a cell's groups.
struct Packing {
  Precision precision = Precision::float32;
  std::int32_t byte_offset = 0;
  int part = 0, parts = 1;
};

// ------------------------------------------------------------------------------------------- products (product.inl)

struct Segment {  // one stretch of the summed index
  ConstRows a;
  std::int64_t k;
  const float* packed;  // its rows of W, by pack_product, all n columns
};

enum class Init : std::int32_t {
  zero,        // chain starts from 0
  bias,        // chain starts from bias[n]
  accumulate,  // chain starts from what C holds
};

// C[r][n] = chain from init over the segments in order, k ascending within each: A_s[r][k] * W[k][n].
// Rows: the list `rows` (m entries, ascending) or, if null, r = row_begin .. row_begin + m - 1.
struct ProductArgs {
  std::int64_t batch;  // B of the two-level addressing
  std::int64_t row_begin, m;
  const std::int32_t* rows;  // or null
  int segments;
  Segment a[4];
  std::int64_t n, n_begin, n_end;  // columns; those that this call computes, n_begin a multiple of two vectors
  const float* bias;               // [n], for Init::bias
  Init init;
  Rows c;
  // Epilogue. With `scale`: C[r][n] += scale[b][n] * chain (init must be zero; C is accumulated into, unfused: the
  // product is rounded, then added). Else C = activation(chain), and z, if given, keeps the chain itself.
  const float* scale;  // [B][scale_row] or null
  std::ptrdiff_t scale_row;
  Activation activation;  // element-wise only; row-wise ones are a pass of their own
  Rows z;                 // z.data may be null
  // In a reduced precision there is one segment.
  Precision precision;
  const Dot* dot;
  float* scratch;  // product_scratch floats, 64-byte aligned; only then
};

// dW[k][g][n] (+)= sum over the listed rows of A[r][k] * D[r][g][n], in blocks of kGradBlock listed rows: each block one
// chain from 0 in row order, block sums added in order. `bias`: the same sum of D alone. Several matrices A may share one
// D: their columns are counted on, those of the first before those of the second.
// A call computes the output tile [k_begin, k_end) x all groups x [n_begin, n_end); tiles may run in parallel.
struct GradFactor {
  ConstRows a;
  std::int64_t k;
  const float* scale;  // A is scaled per (b, k) (dropout): [B][scale_row], or null
  std::ptrdiff_t scale_row;
  float* c;  // dW: element (k, g, n) at c[k*c_row + g*c_group + n]
};
struct GradArgs {
  std::int64_t batch;
  std::int64_t row_begin, m;
  const std::int32_t* rows;  // or null
  int factors;
  GradFactor a[2];
  ConstRows d;  // gradients: group g of row r starts at d + g*d_group, padded
  int groups;
  std::ptrdiff_t d_group;
  std::int64_t n;  // columns per group
  std::ptrdiff_t c_row, c_group;
  float* bias;  // or null: element (g, n) at bias[g*bias_group + n]; only the k_begin == 0 tile
  std::ptrdiff_t bias_group;
  bool accumulate;  // false: overwrite; true: add (the caller splits m at multiples of kGradBlock)
  std::int64_t k_begin, k_end, n_begin, n_end;  // n_begin a multiple of kPad
  float* scratch;                               // grad_scratch floats, 64-byte aligned
};

// ------------------------------------------------------------------------------------------------ cells (cells/*.inl)

enum class CellKind : std::int32_t { simple_rnn, lstm, gru_reset_after, gru_reset_before };
inline constexpr int kCellKinds = 4;
inline constexpr int cell_gates(CellKind c) { return c == CellKind::simple_rnn ? 1 : c == CellKind::lstm ? 4 : 3; }
// Slots of pad(H) floats that forward keeps per row for backward:
//   simple_rnn [h]   lstm [i f c o]   gru [z r hh rec], rec = the candidate's recurrent term (U_h h + b_rh, reset after)
//   or r*h (reset before).
// A slot holds the activated value, or the pre-activation where needs_input(activation). Backward turns the slots in
// place into the gradients of the pre-activations: simple_rnn [dz]; lstm [di df dc do]; gru [dz dr dh drec], where
// reset after: dh = gradient of x's half, drec = of the recurrent half; reset before: dh, and rec keeps r*h.
inline constexpr int cell_slots(CellKind c) { return c == CellKind::simple_rnn ? 1 : 4; }

// Keras's layouts: W [I][G*H], U [H][G*H], b [G*H], and for gru_reset_after b [2][3H]; b may be null.
struct CellWeights {
  std::int64_t input, units;
  const float* w;
  const float* u;
  const float* b;
};

// Several calls may share the steps of the same rows: call `part` of `parts` does its share of the units (none, where they
// are too few) and in each step calls sync(context) once, which must return when all parts have called it. Not with
// row-wise activations, nor for gru_reset_before, whose units need each other within a step.
struct Share {
  int part = 0, parts = 1;
  void (*sync)(void* context) = nullptr;
  void* context = nullptr;
};

// Steps t_begin..t_end of rows row_begin..row_end. Time step t reads x at x.data + t*x.step, state slot t % h_slots,
// and writes state slot (t+1) % h_slots; slot = [B][pad(H)]. The output of step t is therefore h slot t+1.
// A masked row (mask 0) is skipped: its x is not read, h and c are copied, its gate slots are left as they are.
struct CellForwardArgs {
  std::int64_t batch, input, units;
  std::int64_t row_begin, row_end, t_begin, t_end;
  Activation activation, recurrent_activation;  // any, row-wise ones included (over the units)
  const float* packed;                          // by pack_cell
  bool per_gate;                                // as packed; float32 only
  Precision precision;                          // as packed
  const Dot* dot;                               // for reduced ones
  Share share;
  ConstRows x;
  std::ptrdiff_t x_gate;     // 0, or the distance between the gates' own inputs (dropout, one mask per gate); per_gate
  const std::uint8_t* mask;  // at mask[t*mask_step + b], or null
  std::ptrdiff_t mask_step;
  float* h;
  std::int64_t h_slots;  // T+1 (training, return_sequences) or 2
  float* c;              // lstm only
  std::int64_t c_slots;  // T+1, or 1: updated in place
  float* gates;          // [T][B][slots][pad(H)] or null
  const float*
      recurrent_scale;  // [G][B][pad(H)] recurrent dropout, multiplies h inside the product only; per_gate; or null
  float* scratch;       // forward_scratch floats, 64-byte aligned, one per concurrent call
};

// Steps t_end-1 down to t_begin. dh, dc: gradient of the state after step t_end on entry, before t_begin on return.
struct CellBackwardArgs {
  std::int64_t batch, input, units;
  std::int64_t row_begin, row_end, t_begin, t_end;
  Activation activation, recurrent_activation;
  const float* packed;  // by pack_cell_backward
  Share share;
  float* gates;    // in: caches; out: gradients of the pre-activations (masked rows: unspecified)
  const float* h;  // [T+1][B][pad(H)]
  const float* c;  // [T+1][B][pad(H)], lstm only
  ConstRows dy;    // gradient of each step's output, data may be null
  const std::uint8_t* mask;
  std::ptrdiff_t mask_step;
  bool zero_output_for_mask;  // then dy of a masked step is ignored, else it goes to dh
  const float* recurrent_scale;
  float* dh;  // [B][pad(H)]
  float* dc;  // [B][pad(H)], lstm only
  float* scratch;
};

// -------------------------------------------------------------------------------- rows: softmax, norms, losses, …

// A block of rows without the two levels: row i at data + i*ld, n true columns.
struct LayerNormArgs {
  std::int64_t rows, n;
  const float* x;
  std::ptrdiff_t ldx;
  const float* gamma;  // [n] or null
  const float* beta;   // [n] or null
  float epsilon;
  float* y;
  std::ptrdiff_t ldy;
  float* mean;
  float* inv_std;  // [rows] caches, or null
};
struct LayerNormGradArgs {
  std::int64_t rows, n;
  const float* x;
  std::ptrdiff_t ldx;
  const float* dy;
  std::ptrdiff_t lddy;
  const float* gamma;
  const float* mean;
  const float* inv_std;
  float* dx;
  std::ptrdiff_t lddx;  // or null
  float* xhat;
  std::ptrdiff_t ldxhat;  // out: dy * normalised x, so that dgamma = column sums of it; or null
};

// relu and elu with parameters: y = min(x, max) where x > threshold, else slope (x - threshold); with `exponential` the
// latter is slope (e^(x - threshold) - 1). Infinite `max`: none.
struct RectifyArgs {
  std::int64_t rows, n;
  const float* x;
  std::ptrdiff_t ldx;
  float threshold, max, slope;
  bool exponential;
  float* y;  // may be x
  std::ptrdiff_t ldy;
};

// Batch normalisation: n columns, statistics of each column over the rows listed, or over the first m. Columns are
// independent of each other, so that threads may share them.
struct BatchMomentsArgs {
  std::int64_t m, n;
  const std::int32_t* rows;  // or null
  const float* x;
  std::ptrdiff_t ldx;
  float* mean;
  float* variance;  // [n], overwritten
};
struct BatchNormArgs {
  std::int64_t rows, n;
  const float* x;
  std::ptrdiff_t ldx;
  const float* mean;
  const float* scale;  // of batch_norm_scale
  const float* beta;   // or null
  float* y;
  std::ptrdiff_t ldy;
};
struct BatchNormSumsArgs {
  std::int64_t m, n;
  const std::int32_t* rows;  // or null
  const float* x;
  std::ptrdiff_t ldx;
  const float* dy;
  std::ptrdiff_t lddy;
  const float* mean;
  const float* inv_std;
  float* dbeta;
  float* dgamma;  // [n], overwritten
};
struct BatchNormGradArgs {
  std::int64_t rows, n;
  const float* x;
  std::ptrdiff_t ldx;
  const float* dy;
  std::ptrdiff_t lddy;
  const float* mean;
  const float* inv_std;
  const float* scale;
  const float* dbeta;
  const float* dgamma;
  const std::uint8_t* mask;  // [rows], 0 = the statistics are not of this row; or null
  float share;               // one row's part in the statistics; 0: they are not of these rows
  float* dx;
  std::ptrdiff_t lddx;
};

enum class LossKind : std::int32_t {
  mean_squared_error,
  mean_absolute_error,
  huber,
  mean_absolute_percentage_error,
  mean_squared_logarithmic_error,
  log_cosh,
  poisson,
  kl_divergence,
  hinge,
  squared_hinge,
  categorical_hinge,
  cosine_similarity,
  binary_crossentropy,
  binary_focal_crossentropy,
  categorical_focal_crossentropy,
  categorical_crossentropy,
  sparse_categorical_crossentropy
};
// Per row: loss[i] (not weighted), and dpred[i][:] = weight[i] * d loss[i] / d pred[i][:].
// Keras's definitions: regression and binary losses are means over the n columns. Probabilities (from_logits false):
// categorical ones are divided by their sum, all clipped to [1e-7, 1-1e-7] (no gradient where clipped).
// A row of weight 0 gives loss as it is but dpred exactly 0; with `skip` set for it, loss 0 and nothing is read.
struct LossArgs {
  LossKind kind;
  std::int64_t rows, n;
  const float* pred;
  std::ptrdiff_t ldp;
  const float* target;
  std::ptrdiff_t ldt;          // all but sparse
  const std::int32_t* labels;  // sparse, each in [0, n)
  const float* weight;         // [rows]; may be null when dpred is
  const std::uint8_t* skip;    // [rows] nonzero = skipped, or null
  bool from_logits;
  float label_smoothing;
  float delta;  // huber
  float* loss;  // [rows]
  float* dpred;
  std::ptrdiff_t ldd;             // or null
  bool zeros_and_ones = false;    // hinge, squared_hinge: targets of 0 stand for -1
  float alpha = 1, gamma = 0;     // focal ones
  const float* alphas = nullptr;  // [n], in alpha's place; or null
  bool balanced = false;  // binary focal: alpha weighs the ones, 1 - alpha the zeros; else alpha is not looked at
};

struct AdamArgs {
  std::int64_t n;
  float* p;
  const float* g;
  float* m;
  float* v;
  float* vhat;  // vhat null unless amsgrad
  float alpha;  // lr * sqrt(1-beta2^t) / (1-beta1^t)
  float one_minus_beta1, one_minus_beta2, epsilon;
  float decay;  // p -= p * decay first (weight_decay * lr); 0 = none
};
struct SgdArgs {
  std::int64_t n;
  float* p;
  const float* g;
  float* m;  // m null = no momentum
  float lr, momentum;
  bool nesterov;
  float decay;
};
struct RmspropArgs {
  std::int64_t n;
  float* p;
  const float* g;
  float* v;
  float* mean;  // of the gradient; null unless centered
  float* m;     // m null = no momentum
  float lr, momentum, one_minus_rho, epsilon;
  float decay;
};
struct NadamArgs {
  std::int64_t n;
  float* p;
  const float* g;
  float* m;
  float* v;
  float alpha_m,
      alpha_g;  // lr u' / (1 - P u'), lr (1-u) / (1 - P): u this step's momentum, u' the next one's, P all so far
  float one_minus_beta1, one_minus_beta2;
  float correction;  // 1 / (1-beta2^t)
  float epsilon, decay;
};
struct AdamaxArgs {
  std::int64_t n;
  float* p;
  const float* g;
  float* m;
  float* norm;
  float alpha;  // lr / (1-beta1^t)
  float one_minus_beta1, beta2, epsilon, decay;
};
struct AdagradArgs {
  std::int64_t n;
  float* p;
  const float* g;
  float* v;
  float lr, epsilon, decay;
};
struct AdadeltaArgs {
  std::int64_t n;
  float* p;
  const float* g;
  float* v;
  float* d;  // of the steps what v is of the gradients
  float lr, one_minus_rho, epsilon, decay;
};
struct FtrlArgs {
  std::int64_t n;
  float* p;
  const float* g;
  float* v;
  float* linear;
  float lr, power;  // of v: minus learning_rate_power
  float l1, l2;     // l2: 2 (l2_regularization_strength + beta / (2 lr))
  float shrinkage;  // 2 l2_shrinkage_regularization_strength
  float decay;
};
struct LionArgs {
  std::int64_t n;
  float* p;
  const float* g;
  float* m;
  float lr, one_minus_beta1, one_minus_beta2, decay;
};

// ----------------------------------------------------------------------------------------------------- reflections

// Columns c of float64 become c - (c . v) v for one v after another, from number `first` to number `last`, upwards or
// downwards. Number j is zero before row j.
constexpr std::int64_t kReflectLanes = 8;
struct ReflectArgs {
  std::int64_t rows;      // a multiple of kReflectLanes
  std::ptrdiff_t column;  // from one column, and from one v, to the next
  double* c;
  std::int64_t columns;
  const double* v;  // number `first`
  std::int64_t first, last;
};

// ------------------------------------------------------------------------------------------------------- the table

struct Kernels {
  const char* isa;  // "scalar", "avx2", "avx512", "neon"
  int width;        // floats in a vector

  // Products. pack_product reads W[k][n] at w[k*k_stride + n*n_stride]. Sizes are in floats.
  std::int64_t (*packed_product_size)(std::int64_t k, std::int64_t n, Precision precision);
  void (*pack_product)(const float* w, std::ptrdiff_t k_stride, std::ptrdiff_t n_stride, std::int64_t k, std::int64_t n,
                       Packing packing, float* packed);
  std::int64_t (*product_scratch)(std::int64_t k, std::int64_t m, Precision precision);
  void (*product)(const ProductArgs& args);
  std::int64_t (*grad_scratch)(std::int64_t k);  // of all factors
  void (*grad)(const GradArgs& args);

  // Cells, indexed by CellKind where they differ.
  // per_gate: for calls in which each gate has its own input or state (recurrent dropout); a little larger.
  std::int64_t (*packed_cell_size)(CellKind kind, std::int64_t input, std::int64_t units, bool per_gate,
                                   Precision precision);
  void (*pack_cell)(CellKind kind, const CellWeights& weights, bool per_gate, Packing packing, float* packed);
  std::int64_t (*packed_cell_backward_size)(CellKind kind, std::int64_t units);
  void (*pack_cell_backward)(CellKind kind, const CellWeights& weights, Packing packing, float* packed);
  // Parts that a step's units can be cut into so that each has something to do (Share).
  std::int64_t (*cell_shares)(CellKind kind, std::int64_t units, bool backward, Precision precision);
  // Floats of scratch that a call needs; what only says where things are is not looked at.
  std::int64_t (*forward_scratch)(CellKind kind, const CellForwardArgs& args);
  std::int64_t (*backward_scratch)(CellKind kind, const CellBackwardArgs& args);
  void (*cell_forward[kCellKinds])(const CellForwardArgs& args);
  void (*cell_backward[kCellKinds])(const CellBackwardArgs& args);
  // One step of one row, prepared: make_step writes to 64-byte aligned memory of step_size floats what args say of batch 1
  // and one step, without mask, dropout and caches (scratch, x, h and c are not looked at); step then does only the rest.
  // h, h_next and c: pad(units) floats, aligned; h_next is not h, c (lstm) is updated in place. `backwards` walks the
  // weights from their end: with every other call, what was read last is read first.
  std::int64_t (*step_size)(CellKind kind, const CellForwardArgs& args);
  void (*make_step)(CellKind kind, const CellForwardArgs& args, float* memory);
  void (*step)(float* memory, const float* x, const float* h, float* h_next, float* c, bool backwards);

  // Activations on rows of n columns (in place allowed: y == x, dx == dy). backward takes what needs_input says:
  // `cache` is the output, or the input where needs_input. Row-wise activations work on each row's n columns.
  void (*activate)(Activation a, std::int64_t rows, std::int64_t n, const float* x, std::ptrdiff_t ldx, float* y,
                   std::ptrdiff_t ldy);
  void (*activate_backward)(Activation a, std::int64_t rows, std::int64_t n, const float* cache, std::ptrdiff_t ldc,
                            const float* dy, std::ptrdiff_t lddy, float* dx, std::ptrdiff_t lddx);

  void (*rectify)(const RectifyArgs& args);
  void (*rectify_backward)(const RectifyArgs& args);  // y *= the derivative at x

  // Element-wise on n contiguous floats.
  void (*add)(std::int64_t n, const float* a, const float* b, float* y);       // y = a + b
  void (*multiply)(std::int64_t n, const float* a, const float* b, float* y);  // y = a * b
  void (*scale)(std::int64_t n, float s, const float* a, float* y);            // y = s * a
  void (*axpy)(std::int64_t n, float s, const float* x, float* y);             // y = fma(s, x, y)
  void (*clip)(std::int64_t n, float lo, float hi, float* y);                  // y = min(max(y, lo), hi), NaN stays NaN
  // sum of squares / of absolute values: blocks of kSumBlock elements, 16 lanes and the fixed tree in each, blocks added in
  // double in order.
  double (*sum_squares)(std::int64_t n, const float* x);
  double (*sum_abs)(std::int64_t n, const float* x);
  // The sum of whole groups of 8 vectors, as fast as n floats can be read: the measure of what reads weights. In no promised
  // order, unlike everything else here.
  float (*read_all)(std::int64_t n, const float* x);
  // y[c] (+)= sum over rows of x[r][c], in blocks of kGradBlock rows, block sums added in order.
  void (*column_sums)(std::int64_t rows, std::int64_t n, const float* x, std::ptrdiff_t ldx, bool accumulate, float* y);

  // Random numbers: Philox4x32-10. Multipliers for dropout, keep ? 1/(1-rate) : 0, for elements
  // index .. index+n-1 of stream (key, counter): element e uses word e % 4 of block e / 4.
  void (*dropout_mask)(std::uint64_t key, std::uint64_t counter, std::uint64_t index, std::int64_t n, float rate,
                       float* y);
  // The same elements as normal numbers, of that mean and standard deviation.
  void (*normals)(std::uint64_t key, std::uint64_t counter, std::uint64_t index, std::int64_t n, float mean,
                  float deviation, float* y);

  double (*squared_norm)(std::int64_t n, const double* x);  // n is a multiple of kReflectLanes
  void (*reflect)(const ReflectArgs& args);

  void (*layer_norm)(const LayerNormArgs& args);
  void (*layer_norm_backward)(const LayerNormGradArgs& args);
  // Sums over rows in blocks of kGradBlock of them, block sums added in order.
  void (*batch_moments)(const BatchMomentsArgs& args);
  void (*batch_norm_scale)(std::int64_t n, const float* variance, float epsilon, const float* gamma, float* inv_std,
                           float* scale);
  void (*batch_norm)(const BatchNormArgs& args);
  void (*batch_norm_sums)(const BatchNormSumsArgs& args);
  void (*batch_norm_backward)(const BatchNormGradArgs& args);
  void (*loss)(const LossArgs& args);
  void (*adam)(const AdamArgs& args);
  void (*sgd)(const SgdArgs& args);
  void (*rmsprop)(const RmspropArgs& args);
  void (*nadam)(const NadamArgs& args);
  void (*adamax)(const AdamaxArgs& args);
  void (*adagrad)(const AdagradArgs& args);
  void (*adadelta)(const AdadeltaArgs& args);
  void (*lion)(const LionArgs& args);
  void (*ftrl)(const FtrlArgs& args);

  Dot dot;
};

}  // namespace seqcore

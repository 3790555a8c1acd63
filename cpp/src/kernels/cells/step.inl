// One step of one row, prepared: what streams run. Its products are made ready once, but for where the step's input and state
// are. Included by isa.inl, after cell.inl.

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr int kMostStrips = 3;  // of a pass
constexpr bool strips_fit() {
  for (const auto& passes : kPasses)
    if (passes.pass[0].count > kMostStrips || passes.pass[1].count > kMostStrips) return false;
  return true;
}
static_assert(strips_fit());

// A group's products for a single row, and where they leave its pre-activations: two groups that follow each other do not
// share that, so that both may be finished at once.
struct ReadyGroup {
  Block z;
  Product product[kMostStrips];
  std::int64_t vectors[kMostStrips];
};

// One step of one row again and again: the plan is made once and kept at the start of the caller's memory, then the groups,
// then scratch.
struct StepPlan {
  Plan plan;
  Share share;
  float* chains;
  float *x_words, *h_words, *x_scale, *h_scale;
  ReadyGroup* ready[2];  // of each pass; null: the passes run as for many rows
};
constexpr std::int64_t floats_of(std::int64_t bytes) { return (bytes + 63) / 64 * 16; }
constexpr std::int64_t kStepPlan = floats_of(sizeof(StepPlan));

bool is_ready(const CellForwardArgs& a) {
  return a.precision != Precision::int8 && !is_whole(a.activation, a.recurrent_activation);
}
std::int64_t ready_size(CellKind kind, const CellForwardArgs& a) {
  const Geometry geometry{a.input, a.units, a.per_gate, a.precision};
  std::int64_t groups = 0;
  if (is_ready(a))
    for (const Strips& strips : passes_of(kind, a.precision)) groups += geometry.groups(strips);
  return floats_of(groups * static_cast<std::int64_t>(sizeof(ReadyGroup)));
}
std::int64_t step_size(CellKind kind, const CellForwardArgs& a) {
  return kStepPlan + ready_size(kind, a) + ForwardScratch(kind, a, 1).end;
}

// REQUIRES: the chains of two groups behind `chains`.
void make_ready(const Step& s, const PassPlan& pass, float* chains, ReadyGroup* ready) {
  const std::int64_t width = pass.strips->width * W;
  for (std::int64_t group = pass.begin; group < pass.end; ++group) {
    const std::int64_t unit = group * width, n = s.geometry.group_units(*pass.strips, unit);
    ReadyGroup& r = ready[group];
    r = {};
    r.z.data = chains + group % 2 * kGroupColumns;
    r.z.rows = 1;
    r.z.unit = unit;
    r.z.width = least(width, vectors(s.units - unit) * W);
    int gate = 0, strips = 0;
    each_strip(s.geometry, *pass.strips, n, pass.packed + group * pass.size,
               [&](const Strip& strip, std::ptrdiff_t column, std::int64_t columns, const float* bias, const float* w,
                   const float* u) {
                 for (int g = 0; g < strip.gates; ++g) r.z.gate[gate++] = column + g * n;
                 Product& t = r.product[strips];
                 if (strip.input)
                   t.a[t.segments++] = {nullptr, kNoOffset, words(s.geometry.precision, s.geometry.input), w};
                 if (strip.state)
                   t.a[t.segments++] = {nullptr, kNoOffset, words(s.geometry.precision, s.geometry.units), u};
                 t.init = bias;
                 t.out = r.z.data + column;
                 r.vectors[strips++] = columns / W;
               });
  }
}

// A group's chains for a single row.
SEQCORE_INLINE const Block& ready_chains(const Step& s, const Strips& strips, ReadyGroup& group) {
  for (int k = 0; k < strips.count; ++k) {
    const Strip& strip = strips.strip[k];
    Product& t = group.product[k];
    int segment = 0;
    if (strip.input) t.a[segment++].base = s.x.base;
    if (strip.state) t.a[segment].base = s.state.base;
    if (s.geometry.precision == Precision::bfloat16)
      s.dot->bfloat16(t, 1, group.vectors[k]);
    else
      run_rows<Float32, Layout::rows, 1>(1, t, 0, 0, group.vectors[k]);
  }
  return group.z;
}

// run_pass for a single row.
void run_ready(const Step& s, const PassPlan& pass, ReadyGroup* ready, bool backwards) {
  const std::int64_t step = backwards ? -1 : 1, end = backwards ? pass.begin - 1 : pass.end;
  for (std::int64_t group = backwards ? pass.end - 1 : pass.begin; group != end; group += step) {
    const Block& z = ready_chains(s, *pass.strips, ready[group]);
    if (pass.pass.finish_two && group + step != end &&
        (pass.even || (group != pass.last && group + step != pass.last))) {
      group += step;
      pass.pass.finish_two(s, z, ready_chains(s, *pass.strips, ready[group]));
    } else {
      pass.pass.finish(s, z);
    }
  }
}

void make_step(CellKind kind, const CellForwardArgs& args, const Passes& passes, float* memory) {
  CellForwardArgs a = args;
  auto* ready = reinterpret_cast<ReadyGroup*>(memory + kStepPlan);
  a.scratch = memory + kStepPlan + ready_size(kind, a);
  const ForwardScratch space(kind, a, 1);
  StepPlan& p = *reinterpret_cast<StepPlan*>(memory);
  p = {make_plan(a, kind, passes, 0, 1, space),
       a.share,
       a.scratch + space.chains,
       a.scratch + space.x_words,
       a.scratch + space.h_words,
       a.scratch + space.scales,
       a.scratch + space.scales + pad(kHoistRows + kRowBlock),
       {}};
  Step& s = p.plan.s;
  s.rows = kFirstRow;
  s.m = 1;
  p.plan.x.offset = p.plan.state.offset = kNoOffset;
  s.x = p.plan.x;
  s.state = p.plan.state;
  if (!is_ready(a)) return;
  for (int i = 0; i < p.plan.count; ready += p.plan.passes[i++].last + 1)
    make_ready(s, p.plan.passes[i], p.chains, p.ready[i] = ready);
}

void cell_step(float* memory, const float* x, const float* h, float* h_next, float* c, bool backwards) {
  StepPlan& p = *reinterpret_cast<StepPlan*>(memory);
  Step& s = p.plan.s;
  s.h = h;
  s.h_next = h_next;
  s.c = s.c_next = c;
  std::ptrdiff_t offset[2];
  if (p.plan.coded) {
    p.plan.x.base = x;
    s.x = encoded(s, p.plan.x, 1, 0, p.x_words, p.x_scale, offset);
  } else {
    s.x.base = x;
  }
  for (int i = 0; i < p.plan.count; ++i) {
    const float* state = i == 0 ? h : s.own[1];  // the second pass of reset before: r*h is the state
    if (p.plan.coded) {
      p.plan.state.base = state;
      s.state = encoded(s, p.plan.state, 1, 0, p.h_words, p.h_scale, offset + 1);
    } else {
      s.state.base = state;
    }
    if (p.ready[i])
      run_ready(s, p.plan.passes[i], p.ready[i], backwards);
    else
      run_pass(s, p.plan.passes[i], p.chains, backwards);
  }
  sync(p.share);
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA

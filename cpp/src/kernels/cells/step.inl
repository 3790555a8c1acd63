// One step of one row, prepared: what streams run. Its products are made ready once, but for the group whose weights they
// meet. Included by isa.inl, after cell.inl.

namespace seqcore::SEQCORE_ISA {
namespace {

// A strip's product for a single row, ready but for the group whose weights it meets.
struct ReadyStrip {
  Product product;
  std::int64_t vectors;
  const float *init, *w[2];  // of the first group
  std::ptrdiff_t column;     // where its chains begin in a group's
};
constexpr int kMostStrips = 3;  // of all passes
constexpr bool strips_fit() {
  for (const auto& passes : kPasses)
    if (passes.pass[0].count + passes.pass[1].count > kMostStrips) return false;
  return true;
}
static_assert(strips_fit());
struct ReadyGroup {
  Block z[2];  // of each pass
  ReadyStrip strip[kMostStrips];
};

// One step of one row again and again: the plan is made once and kept at the start of the caller's memory, scratch after.
struct StepPlan {
  Plan plan;
  Share share;
  float* chains;
  float *x_words, *h_words, *x_scale, *h_scale;
  bool ready;           // or the passes run as for many rows
  ReadyGroup group[2];  // any but the last, and the last
};
constexpr std::int64_t kStepPlan = (sizeof(StepPlan) + 63) / 64 * 16;  // floats

std::int64_t step_size(CellKind kind, const CellForwardArgs& a) { return kStepPlan + ForwardScratch(kind, a, 1).end; }

void make_ready(StepPlan& p) {
  const Step& s = p.plan.s;
  int first = 0;
  for (int i = 0; i < p.plan.count; first += p.plan.passes[i++].strips->count) {
    const PassPlan& pass = p.plan.passes[i];
    const std::int64_t width = pass.strips->width * W, last = s.geometry.groups(*pass.strips) - 1;
    for (int which = 0; which < 2; ++which) {
      const std::int64_t unit = which == 1 ? last * width : 0, n = s.geometry.group_units(*pass.strips, unit);
      Block& z = p.group[which].z[i];
      z = {p.chains, pass.gates * width, {}, 1, unit, least(width, vectors(s.units - unit) * W)};
      ReadyStrip* ready = p.group[which].strip + first;
      int gate = 0;
      each_strip(s.geometry, *pass.strips, n, pass.packed,
                 [&](const Strip& strip, std::ptrdiff_t column, std::int64_t columns, const float* bias, const float* w,
                     const float* u) {
                   for (int g = 0; g < strip.gates; ++g) z.gate[gate++] = column + g * n;
                   Product& t = ready->product;
                   t = {};
                   if (strip.input) {
                     ready->w[t.segments] = w;
                     t.a[t.segments++] = {nullptr, kNoOffset, words(s.geometry.precision, s.geometry.input), w};
                   }
                   if (strip.state) {
                     ready->w[t.segments] = u;
                     t.a[t.segments++] = {nullptr, kNoOffset, words(s.geometry.precision, s.geometry.units), u};
                   }
                   ready->init = bias;
                   ready->column = column;
                   ready->vectors = columns / W;
                   ++ready;
                 });
    }
  }
}

// A group's chains for a single row, to `chains`. The pass's first strip is `first`.
Block& ready_chains(StepPlan& p, int number, int first, std::int64_t group, bool last, float* chains) {
  const Step& s = p.plan.s;
  const PassPlan& pass = p.plan.passes[number];
  const std::int64_t offset = group * pass.size;
  ReadyGroup& ready = p.group[last];
  for (int k = 0; k < pass.strips->count; ++k) {
    const Strip& strip = pass.strips->strip[k];
    ReadyStrip& r = ready.strip[first + k];
    Product& t = r.product;
    t.init = r.init + offset;
    t.out = chains + r.column;
    int segment = 0;
    if (strip.input) t.a[0].base = s.x.base, t.a[segment++].w = r.w[0] + offset;
    if (strip.state) t.a[segment].base = s.state.base, t.a[segment].w = r.w[segment] + offset;
    if (s.geometry.precision == Precision::bfloat16)
      s.dot->bfloat16(t, 1, r.vectors);
    else
      run_rows<Float32, Layout::rows, 1>(1, t, 0, 0, r.vectors);
  }
  Block& z = ready.z[number];
  z.data = chains;
  z.unit = group * pass.strips->width * W;
  return z;
}

// run_pass for a single row.
void run_ready(StepPlan& p, int number, int first, bool backwards) {
  const Step& s = p.plan.s;
  const PassPlan& pass = p.plan.passes[number];
  const std::int64_t last = s.geometry.groups(*pass.strips) - 1;
  const std::int64_t step = backwards ? -1 : 1, end = backwards ? pass.begin - 1 : pass.end;
  for (std::int64_t group = backwards ? pass.end - 1 : pass.begin; group != end; group += step) {
    const Block& z = ready_chains(p, number, first, group, group == last, p.chains);
    if (pass.pass.finish_two && group + step != end && (pass.even || (group != last && group + step != last))) {
      const Block z_first = z;
      group += step;
      pass.pass.finish_two(s, z_first, ready_chains(p, number, first, group, group == last, p.chains + kGroupColumns));
    } else {
      pass.pass.finish(s, z);
    }
  }
}

void make_step(CellKind kind, const CellForwardArgs& args, const Passes& passes, float* memory) {
  CellForwardArgs a = args;
  a.scratch = memory + kStepPlan;
  const ForwardScratch space(kind, a, 1);
  StepPlan& p = *reinterpret_cast<StepPlan*>(memory);
  p = {make_plan(a, kind, passes, 0, 1, space),
       a.share,
       a.scratch + space.chains,
       a.scratch + space.x_words,
       a.scratch + space.h_words,
       a.scratch + space.scales,
       a.scratch + space.scales + pad(kHoistRows + kRowBlock),
       a.precision != Precision::int8 && !is_whole(a.activation, a.recurrent_activation),
       {}};
  Step& s = p.plan.s;
  s.rows = kFirstRow;
  s.m = 1;
  p.plan.x.offset = p.plan.state.offset = kNoOffset;
  s.x = p.plan.x;
  s.state = p.plan.state;
  if (p.ready) make_ready(p);
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
    if (p.ready)
      run_ready(p, i, i == 0 ? 0 : p.plan.passes[0].strips->count, backwards);
    else
      run_pass(s, p.plan.passes[i], p.chains, backwards);
  }
  sync(p.share);
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA

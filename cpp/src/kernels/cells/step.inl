// One step of one row again and again: what streams run. The plan is made once and kept at the start of the caller's memory,
// scratch behind it. Included by isa.inl, after forward.inl.

namespace seqcore::SEQCORE_ISA {
namespace {

struct StepPlan {
  Plan plan;
  Share share;
  float* chains;
  float *x_words, *h_words, *x_scale, *h_scale;
};
constexpr std::int64_t kStepPlan = (sizeof(StepPlan) + 63) / 64 * 16;

std::int64_t step_size(CellKind kind, const CellForwardArgs& a) { return kStepPlan + ForwardScratch(kind, a, 1).end; }

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
       a.scratch + space.scales + pad(kHoistRows + kRowBlock)};
  Step& s = p.plan.s;
  s.rows = kFirstRow;
  s.m = 1;
  p.plan.x.offset = p.plan.state.offset = kNoOffset;
  s.x = p.plan.x;
  s.state = p.plan.state;
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
    run(s, p.plan.passes[i], p.chains, backwards);
  }
  sync(p.share);
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA

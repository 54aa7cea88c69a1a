// The module `_core`. Only the files `bind*` know both languages.
#include "bind.h"

#include <memory>

#include "core/liveness.h"
#include "core/search.h"

using memfit::Bytes;

static nb::tuple as_tuple(memfit::Plan&& plan) {
  const auto peak = plan.peak;
  const auto seconds = plan.seconds;
  return nb::make_tuple(own(std::move(plan.sequence)), peak, seconds);
}

static void bind_search(nb::module_& m) {
  using memfit::Search;
  using Sequence = Array<int32_t>;
  nb::class_<Search>(m, "Search", "Search over schedules of one graph; a plan is (sequence, peak, seconds).")
      .def(
          "__init__",
          [](Search* self, Array<int64_t> reads_start, Array<int32_t> reads, Array<int64_t> writes_start,
             Array<int32_t> writes, Array<int64_t> workspace, Array<double> seconds, Array<int32_t> reuse,
             Array<int64_t> nbytes, Array<uint8_t> pinned, Array<uint8_t> repeatable, Array<int32_t> edge_before,
             Array<int32_t> edge_after, Array<int32_t> chain, int64_t base) {
            memfit::Problem problem;
            problem.op_count = static_cast<int32_t>(workspace.shape(0));
            problem.storage_count = static_cast<int32_t>(nbytes.shape(0));
            problem.reads_start = copy(reads_start);
            problem.reads = copy(reads);
            problem.writes_start = copy(writes_start);
            problem.writes = copy(writes);
            problem.workspace = copy(workspace);
            problem.seconds = copy(seconds);
            problem.reuse = copy(reuse);
            problem.nbytes = copy(nbytes);
            problem.pinned = copy(pinned);
            problem.repeatable = copy(repeatable);
            problem.base = base;
            problem.finish(copy(edge_before), copy(edge_after), copy(chain));
            new (self) Search(std::move(problem));
          })
      .def("figures", [](Search& self, Sequence sequence) { return as_tuple(self.figures(copy(sequence))); },
           "The plan that a sequence is.")
      .def(
          "ladder",
          [](Search& self, Sequence start, Array<int64_t> budgets, uint64_t seed, int64_t effort) {
            nb::list out;
            for (auto& plan : self.ladder(copy(start), copy(budgets), seed, effort)) out.append(as_tuple(std::move(plan)));
            return out;
          },
          "Plans for falling budgets, each the start of the next.")
      .def(
          "fit",
          [](Search& self, Sequence start, int64_t budget, uint64_t seed, double noise) {
            return as_tuple(self.fit(copy(start), budget, seed, noise));
          },
          "A plan that keeps the budget; an empty sequence when none was found.")
      .def(
          "improve",
          [](Search& self, Sequence start, int64_t budget, uint64_t seed, int64_t effort) {
            return as_tuple(self.improve(copy(start), budget, seed, effort));
          },
          "A cheaper plan from one that keeps the budget.")
      .def(
          "anneal",
          [](Search& self, Sequence start, int64_t budget, uint64_t seed, int64_t effort, double heat) {
            return as_tuple(self.anneal(copy(start), budget, seed, effort, heat));
          },
          "The cheapest plan found by annealing; an empty sequence when none kept the budget.")
      .def(
          "lower",
          [](Search& self, Sequence start, int64_t floor, uint64_t seed, int64_t effort) {
            return as_tuple(self.lower(copy(start), floor, seed, effort));
          },
          "The plan with the smallest peak found by annealing under a falling budget.")
      .def(
          "beam",
          [](Search& self, int64_t budget, double below, int32_t width) {
            bool complete = false;
            auto plan = self.beam(budget, below, width, complete);
            const auto peak = plan.peak;
            const auto seconds = plan.seconds;
            return nb::make_tuple(own(std::move(plan.sequence)), peak, seconds, complete);
          },
          "The cheapest plan below a cost by beam search, and whether nothing was left out; small graphs only.")
      .def(
          "walk_check",
          [](Search& self, Sequence start, int64_t budget, uint64_t seed, int64_t steps) {
            return self.walk_check(copy(start), budget, seed, steps);
          },
          "For tests: how often incremental figures differ from an evaluation from scratch along a random walk.")
      .def(
          "reorder",
          [](Search& self, Sequence start, int64_t budget, uint64_t seed, int64_t effort) {
            return as_tuple(self.reorder(copy(start), budget, seed, effort));
          },
          "The same runs in an order with less excess over the budget.")
      .def_prop_ro("work", &Search::work, "Runs evaluated so far.");
}

void bind_segments(nb::module_& m);  // bind_segments.cpp

NB_MODULE(_core, m) {
  bind_search(m);
  bind_placement(m);
  bind_greedy(m);
  bind_large_placement(m);
  bind_caching(m);
  bind_policies(m);
  bind_census(m);
  bind_order(m);
  bind_replacement(m);
  bind_cache(m);
  bind_memory(m);
  bind_kv_cache(m);
  bind_segments(m);
  bind_pool(m);
  bind_lowbit(m);
  bind_data(m);
  m.doc() = "Native kernels of memfit; each has a Python twin.";
  m.def(
      "simulate",
      [](Array<int64_t> reads_start, Array<int32_t> reads, Array<int64_t> writes_start, Array<int32_t> writes,
         Array<int64_t> workspace, Array<double> seconds, Array<int32_t> reuse, Array<int64_t> nbytes,
         Array<uint8_t> pinned, Array<int32_t> sequence, int64_t base) {
        memfit::LivenessGraph graph{static_cast<int32_t>(workspace.shape(0)), static_cast<int32_t>(nbytes.shape(0)),
                                    {reads_start.data(), reads.data()},       {writes_start.data(), writes.data()},
                                    workspace.data(),                         seconds.data(),
                                    reuse.data(),                             nbytes.data(),
                                    pinned.data()};
        auto result = memfit::simulate(graph, sequence.data(), static_cast<int64_t>(sequence.shape(0)), base);
        return nb::make_tuple(result.peak, result.peak_position, result.seconds, own(std::move(result.during)),
                              own(std::move(result.reused)));
      },
      "Liveness of a schedule: (peak, peak position, seconds, bytes live during each run, reused flags).");
}

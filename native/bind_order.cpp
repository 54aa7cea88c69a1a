// Bindings of operator order.
#include <algorithm>
#include <chrono>

#include "bind.h"
#include "core/order_beam.h"
#include "core/order_cut.h"
#include "core/order_exact.h"

using memfit::Order;
using memfit::OrderProblem;
using memfit::Words;

namespace {

using Sequence = Array<int32_t>;

memfit::Lists lists(const Array<int64_t>& start, const Sequence& items) { return {copy(start), copy(items)}; }

Words marked(const OrderProblem& g, const Order& ops) {
  Words words(g.words, 0);
  for (const int32_t v : ops) memfit::add(words.data(), v);
  return words;
}

// Gives up at the deadline or at an interruption; asks Python at most every 50 ms, with the lock held only then.
class Until {
 public:
  explicit Until(double seconds) : began_(Clock::now()), asked_(began_), seconds_(seconds) {}
  bool operator()() {
    if (over_) return true;
    const auto now = Clock::now();
    if (std::chrono::duration<double>(now - began_).count() >= seconds_) return over_ = true;
    if (now - asked_ < std::chrono::milliseconds(50)) return false;
    asked_ = now;
    nb::gil_scoped_acquire lock;
    interrupted_ = PyErr_CheckSignals() != 0;
    return over_ = interrupted_;
  }
  void raise_if_interrupted() const {
    if (interrupted_) throw nb::python_error();
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point began_, asked_;
  double seconds_;
  bool over_ = false, interrupted_ = false;
};

template <class Work>
auto until(double seconds, Work&& work) {
  Until over(seconds);
  const memfit::Stop stop = [&over] { return over(); };
  auto result = [&] {
    nb::gil_scoped_release unlocked;
    return work(stop);
  }();
  over.raise_if_interrupted();
  return result;
}

}  // namespace

void bind_order(nb::module_& m) {
  nb::class_<OrderProblem>(m, "OrderProblem", "Ops to order, each once; bytes without constants. `seconds`: time limit.")
      .def("__init__",
           [](OrderProblem* self, Array<int64_t> reads_start, Sequence reads, Array<int64_t> writes_start,
              Sequence writes, Array<int64_t> needs_start, Sequence needs, Array<int64_t> workspace, Sequence reuse,
              Array<int64_t> nbytes, Array<uint8_t> kept) {
             OrderProblem g;
             g.op_count = static_cast<int32_t>(workspace.shape(0));
             g.storage_count = static_cast<int32_t>(nbytes.shape(0));
             g.reads = lists(reads_start, reads);
             g.writes = lists(writes_start, writes);
             g.needs = lists(needs_start, needs);
             g.nbytes = copy(nbytes);
             g.kept = copy(kept);
             g.reuse = copy(reuse);
             g.finish(copy(workspace));
             new (self) OrderProblem(std::move(g));
           })
      .def("during",
           [](const OrderProblem& g, Sequence order) { return own(memfit::bytes_during(g, copy(order))); },
           "Bytes while each op of an order runs.")
      .def("forced",
           [](const OrderProblem& g, Sequence order) { return own(memfit::forced_positions(g, copy(order))); },
           "Positions at which every order stands in the same state.")
      .def("cut",
           [](const OrderProblem& g, Sequence before, Sequence between, int32_t op) {
             auto cut = memfit::least_state(g, marked(g, copy(before)), copy(between), op);
             return nb::make_tuple(cut.bytes, own(std::move(cut.done)));
           },
           "The least bytes while an op runs, between two states, and which ops ran before it then.")
      .def("bound",
           [](const OrderProblem& g, Sequence order, double seconds) {
             const auto bound = until(seconds, [&, order = copy(order)](const memfit::Stop& stop) {
               return memfit::order_bound(g, order, stop);
             });
             return nb::make_tuple(bound.bytes, bound.op);
           },
           "Bytes that no order goes below, and the op that needs them.")
      .def("exact",
           [](const OrderProblem& g, Sequence before, Sequence between, int64_t low, int64_t high, int64_t states,
              double seconds) {
             auto exact = until(seconds, [&, before = copy(before), between = copy(between)](const memfit::Stop& stop) {
               return memfit::order_exact(g, marked(g, before), between, low, high, states, stop);
             });
             return nb::make_tuple(own(std::move(exact.order)), exact.bound, exact.complete);
           },
           "The least peak of the ops between two states: (order or empty, bound, complete).")
      .def("beam",
           [](const OrderProblem& g, Sequence any, bool forward, int32_t width, int64_t low, int64_t high,
              double seconds) {
             return own(until(seconds, [&, any = copy(any)](const memfit::Stop& stop) {
               return memfit::order_beam(g, any, forward, width, low, high, stop);
             }));
           },
           "An order below `high` by a beam, or an empty one.")
      .def("windows",
           [](const OrderProblem& g, Sequence order, int64_t low, int32_t longest, int64_t states, double seconds) {
             return own(until(seconds, [&, order = copy(order)](const memfit::Stop& stop) {
               return memfit::order_windows(g, order, low, longest, states, stop);
             }));
           },
           "An order with its worst windows ordered anew.")
      .def("uncross",
           [](const OrderProblem& g, Sequence order, int64_t target, double seconds) {
             return own(until(seconds, [&, order = copy(order)](const memfit::Stop& stop) {
               return memfit::order_uncross(g, order, target, stop);
             }));
           },
           "An order rearranged through the least states of its worst ops.");
}

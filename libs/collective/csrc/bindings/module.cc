#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/utils/pybind.h>

#include <pybind11/chrono.h>
#include <pybind11/stl.h>

#include "csrc/bindings/backend.h"
#include "csrc/bindings/flight_record.h"
#include "csrc/transport/arena.h"

// The Python module trainyard_collective._C: makes backends, and shows what
// tests, logs and the dump of the flight record need.

namespace py = pybind11;
namespace tc = trainyard::collective;

namespace {

template <typename T>
using Shared = c10::intrusive_ptr<T>;

} // namespace

PYBIND11_MODULE(_C, m) {
  // c10d's own types (Backend, Store) are registered by torch.
  py::module_::import("torch.distributed");

  py::class_<
      tc::CollectiveBackend, c10d::Backend, Shared<tc::CollectiveBackend>>(
      m, "CollectiveBackend")
      .def(
          "_traffic",
          [](const tc::CollectiveBackend& self) {
            const auto traffic = self.traffic();
            return py::make_tuple(traffic.payloadBytes, traffic.messages);
          },
          "Payload bytes and messages sent over links by this rank so far.")
      .def(
          "_host_of_ranks", &tc::CollectiveBackend::hostOfRanks,
          py::call_guard<py::gil_scoped_release>(),
          "Number of the host of every rank; ranks with one number share "
          "memory. Blocks until all ranks have joined.");

  m.def(
      "create_backend",
      [](const Shared<c10d::Store>& store, int rank, int size,
         const std::chrono::milliseconds& timeout, const std::string& name,
         const std::vector<int64_t>& globalRanks,
         const std::optional<Shared<c10d::Backend>>& delegate)
          -> Shared<c10d::Backend> {
        return c10::make_intrusive<tc::CollectiveBackend>(
            store, rank, size, timeout, name, globalRanks,
            delegate.value_or(nullptr));
      },
      py::arg("store"), py::arg("rank"), py::arg("size"), py::arg("timeout"),
      py::arg("name"), py::arg("global_ranks"),
      py::arg("delegate") = py::none(),
      py::call_guard<py::gil_scoped_release>());

  m.def(
      "close_all",
      [](const std::chrono::milliseconds& limit) {
        tc::CollectiveBackend::closeAll(limit);
      },
      py::call_guard<py::gil_scoped_release>());

  m.def("arena_stats", [] {
    auto arena = tc::Arena::instance();
    py::dict stats;
    stats["capacity_bytes"] = arena->capacity();
    stats["used_bytes"] = arena->usedBytes();
    stats["backed_bytes"] = arena->backedBytes();
    return stats;
  });

  m.def(
      "dump_on_signal",
      [](int signal, const std::string& prefix, int rank) {
        tc::FlightRecord::instance().dumpOnSignal(signal, prefix, rank);
      });

  m.def("flight_record", [] {
    return py::bytes(tc::FlightRecord::instance().dump());
  });
}

// The C interface: checks of what comes from strangers, and the objects behind their handles.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>

#include "base/parallel.h"
#include "capi/handles.h"
#include "model/file.h"
#include "seqcore/seqcore.h"
#include "stream/stream.h"

using namespace seqcore;

namespace {

static_assert(sizeof(void*) >= sizeof(std::uint64_t), "a handle is a number of 64 bits in a pointer");
static_assert(SEQCORE_MAX_RANK >= Dims::kMaxRank);
static_assert(SEQCORE_FLOAT32 == static_cast<int>(Precision::float32) &&
              SEQCORE_BFLOAT16 == static_cast<int>(Precision::bfloat16) &&
              SEQCORE_INT8 == static_cast<int>(Precision::int8));

constexpr std::int64_t kBatch = 128;  // samples that predict takes at a time; no result depends on it

using Models = Handles<std::shared_ptr<const Snapshot>, 1>;
using Streams = Handles<std::unique_ptr<Stream>, 2>;
// Nothing makes them at run time, which a fork in another thread might cut in two, and nothing destroys them: threads may
// be in calls when the process ends.
static_assert(std::is_trivially_destructible_v<Models> && std::is_trivially_destructible_v<Streams>);
Models models;
Streams streams;

std::uint64_t number(const void* handle) { return reinterpret_cast<std::uintptr_t>(handle); }
template <class Handle>
Handle to_handle(std::uint64_t number) {
  return reinterpret_cast<Handle>(static_cast<std::uintptr_t>(number));
}

thread_local char last_error[1024] = "";

seqcore_status fail(seqcore_status status, const char* message) noexcept {
  std::snprintf(last_error, sizeof last_error, "%s", message);
  std::size_t n = std::strlen(last_error);
  if (n == sizeof last_error - 1) {  // cut, perhaps inside a character
    while (n > 0 && (last_error[n - 1] & 0xC0) == 0x80) n--;
    if (n > 0 && (last_error[n - 1] & 0x80) != 0) n--;
    last_error[n] = '\0';
  }
  return status;
}
seqcore_status no_handle(const char* name, const char* kind) noexcept {
  char message[96];
  std::snprintf(message, sizeof message, "%s: no %s; freed, never made, or of another kind", name, kind);
  return fail(SEQCORE_INVALID_HANDLE, message);
}
seqcore_status busy() noexcept { return fail(SEQCORE_BUSY, Busy().what()); }

// f(), its exceptions made statuses. `invalid` stands for std::invalid_argument.
template <class F>
seqcore_status guarded(F&& f, seqcore_status invalid = SEQCORE_INVALID_ARGUMENT) noexcept {
  try {
    f();
    return SEQCORE_OK;
  } catch (const std::invalid_argument& e) {
    return fail(invalid, e.what());
  } catch (const std::system_error& e) {
    return fail(SEQCORE_SYSTEM_ERROR, e.what());
  } catch (const Busy& e) {
    return fail(SEQCORE_BUSY, e.what());
  } catch (const std::bad_alloc&) {
    return fail(SEQCORE_OUT_OF_MEMORY, "out of memory");
  } catch (const std::length_error&) {  // a vector longer than memory
    return fail(SEQCORE_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& e) {
    return fail(SEQCORE_INTERNAL_ERROR, e.what());
  } catch (...) {
    return fail(SEQCORE_INTERNAL_ERROR, "unknown error");
  }
}

void need(const void* pointer, const char* name) {
  if (!pointer) throw std::invalid_argument(std::string(name) + ": null");
}

// An array without elements may be NULL; inside, ids are told from values by which of the two is there.
template <class T>
T* there(T* array, std::size_t count) {
  static std::remove_const_t<T> nothing{};
  return array || count > 0 ? array : &nothing;
}

Precision parse(int precision) {
  if (precision < SEQCORE_FLOAT32 || precision > SEQCORE_INT8)
    throw std::invalid_argument("precision: expected 0 (float32), 1 (bfloat16) or 2 (int8), got " +
                                std::to_string(precision));
  return static_cast<Precision>(precision);
}

// An array of the caller's: there, and as long as it must be.
void need_count(const void* pointer, std::size_t count, std::int64_t expected, const char* name) {
  need(pointer, name);
  if (count != static_cast<std::size_t>(expected))
    throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(expected) + " elements, got " +
                                std::to_string(count));
}
void need_kind(bool takes_ids, bool ids) {
  if (takes_ids != ids)
    throw std::invalid_argument(takes_ids ? "x: the model takes int32 token ids"
                                          : "ids: the model takes float32 input");
}

void copy_dims(const Dims& dims, int* rank, std::int64_t* to) {
  *rank = dims.rank;
  for (int i = 0; i < SEQCORE_MAX_RANK; i++) to[i] = i < dims.rank ? dims.d[i] : 0;
}

seqcore_status predict(seqcore_model model, int precision, std::int64_t batch, std::int64_t steps, const float* values,
                       const std::int32_t* ids, std::size_t count, float* y, std::size_t y_count) noexcept {
  const auto* const found = models.find(number(model));
  if (!found) return no_handle("model", "model");
  return guarded([&] {
    const Snapshot& snapshot = **found;
    const Network& net = snapshot.network();
    const bool by_ids = values == nullptr;
    const char* const name = by_ids ? "ids" : "x";
    Input x{values, ids, {batch}};
    for (int i = 0; i < net.input().rank; i++) x.shape.push_back(net.input().d[i] < 0 ? steps : net.input().d[i]);
    need_kind(net.takes_ids(), by_ids);
    net.check_input(x);
    need_count(by_ids ? static_cast<const void*>(ids) : values, count, elements(x.shape), name);
    y = there(y, y_count);
    need_count(y, y_count, elements(net.output_shape(x.shape)), "y");
    snapshot.predict(x, kBatch, parse(precision), y);
  });
}

seqcore_status run(seqcore_stream stream, std::int64_t steps, const std::int64_t* which, std::size_t which_count,
                   const float* values, const std::int32_t* ids, std::size_t count, float* y,
                   std::size_t y_count) noexcept {
  const auto* const found = streams.find(number(stream));
  if (!found) return no_handle("stream", "stream");
  return guarded([&] {
    Stream& s = **found;
    const bool by_ids = values == nullptr;
    need_kind(s.takes_ids(), by_ids);
    if (which_count > 0) need(which, "which");
    if (which_count > static_cast<std::size_t>(s.streams()))
      throw std::invalid_argument("which: expected at most " + std::to_string(s.streams()) + " indices, got " +
                                  std::to_string(which_count));
    const std::int64_t rows = which ? static_cast<std::int64_t>(which_count) : s.streams();
    if (steps < 0 || steps > (std::int64_t{1} << 62) / (rows + 1) / std::max(s.features(), s.outputs()))
      throw std::invalid_argument("steps: expected a number of steps, got " + std::to_string(steps));
    need_count(by_ids ? static_cast<const void*>(ids) : values, count, steps * rows * s.features(),
               by_ids ? "ids" : "x");
    y = there(y, y_count);
    need_count(y, y_count, steps * rows * s.outputs(), "y");
    s.run(values, ids, steps, which, rows, y);
  });
}

std::int64_t state_count(const Stream& s) {
  std::int64_t n = 0;
  for (const Stream::StateArray& a : s.state_arrays()) n += s.streams() * a.units;
  return n;
}

// Where each of the stream's state arrays begins.
template <class T>
std::vector<T*> arrays_of(const Stream& s, T* state) {
  std::vector<T*> arrays;
  for (const Stream::StateArray& a : s.state_arrays()) {
    arrays.push_back(state);
    state += s.streams() * a.units;
  }
  return arrays;
}

// A step's two lengths and its kind, checked without a string or an allocation.
seqcore_status check_step(const Stream& s, bool ids, const void* x, std::size_t x_count, const float* y,
                          std::size_t y_count) noexcept {
  if (s.streams() == 1 && s.takes_ids() == ids && x && y && x_count == static_cast<std::size_t>(s.features()) &&
      y_count == static_cast<std::size_t>(s.outputs()))
    return SEQCORE_OK;
  return guarded([&] {
    if (s.streams() != 1)
      throw std::invalid_argument("stream: " + std::to_string(s.streams()) + " streams are run by seqcore_stream_run");
    need_kind(s.takes_ids(), ids);
    need_count(x, x_count, s.features(), "x");
    need_count(y, y_count, s.outputs(), "y");
  });
}

}  // namespace

extern "C" {

const char* seqcore_version(void) noexcept { return SEQCORE_VERSION; }
const char* seqcore_last_error(void) noexcept { return last_error; }

const char* seqcore_status_name(int status) noexcept {
  switch (status) {
    case SEQCORE_OK:
      return "SEQCORE_OK";
    case SEQCORE_INVALID_ARGUMENT:
      return "SEQCORE_INVALID_ARGUMENT";
    case SEQCORE_INVALID_HANDLE:
      return "SEQCORE_INVALID_HANDLE";
    case SEQCORE_INVALID_FILE:
      return "SEQCORE_INVALID_FILE";
    case SEQCORE_SYSTEM_ERROR:
      return "SEQCORE_SYSTEM_ERROR";
    case SEQCORE_BUSY:
      return "SEQCORE_BUSY";
    case SEQCORE_OUT_OF_MEMORY:
      return "SEQCORE_OUT_OF_MEMORY";
    case SEQCORE_INTERNAL_ERROR:
      return "SEQCORE_INTERNAL_ERROR";
  }
  return "unknown";
}

seqcore_status seqcore_set_num_threads(int threads) noexcept {
  return guarded([&] { set_num_threads(threads); });
}
int seqcore_num_threads(void) noexcept {
  int n = 1;
  guarded([&] { n = num_threads(); });
  return n;
}

// ------------------------------------------------------------------------------------------------------------- models

seqcore_status seqcore_model_load(const char* path, seqcore_model* model) noexcept {
  if (!path) return fail(SEQCORE_INVALID_ARGUMENT, "path: null");
  if (!model) return fail(SEQCORE_INVALID_ARGUMENT, "model: null");
  return guarded([&] { *model = to_handle<seqcore_model>(models.add(load_model(path))); }, SEQCORE_INVALID_FILE);
}

seqcore_status seqcore_model_parse(const void* data, std::size_t size, seqcore_model* model) noexcept {
  if (!data) return fail(SEQCORE_INVALID_ARGUMENT, "data: null");
  if (!model) return fail(SEQCORE_INVALID_ARGUMENT, "model: null");
  return guarded(
      [&] { *model = to_handle<seqcore_model>(models.add(parse_model(static_cast<const std::byte*>(data), size))); },
      SEQCORE_INVALID_FILE);
}

seqcore_status seqcore_model_free(seqcore_model model) noexcept {
  return !model || models.remove(number(model)) ? SEQCORE_OK : no_handle("model", "model");
}

seqcore_status seqcore_model_get_info(seqcore_model model, seqcore_model_info* info) noexcept {
  const auto* const found = models.find(number(model));
  if (!found) return no_handle("model", "model");
  return guarded([&] {
    need(info, "info");
    const Network& net = (*found)->network();
    seqcore_model_info is = {};
    is.takes_ids = net.takes_ids();
    is.vocabulary = net.layers().front()->vocabulary();
    for (const Network::Weight& w : net.weights()) is.parameters += w.spec->size();
    copy_dims(net.input(), &is.input_rank, is.input_shape);
    copy_dims(net.output(), &is.output_rank, is.output_shape);
    *info = is;
  });
}

seqcore_status seqcore_model_output_steps(seqcore_model model, std::int64_t steps,
                                          std::int64_t* output_steps) noexcept {
  const auto* const found = models.find(number(model));
  if (!found) return no_handle("model", "model");
  return guarded([&] {
    need(output_steps, "output_steps");
    const Network& net = (*found)->network();
    if (net.input().d[0] < 0 && steps < 1)
      throw std::invalid_argument("steps: expected a positive number, got " + std::to_string(steps));
    std::int64_t last = 0;
    net.each_output(steps, [&](const Dims& dims) { last = dims.d[0]; });
    *output_steps = last;
  });
}

seqcore_status seqcore_model_predict(seqcore_model model, int precision, std::int64_t batch, std::int64_t steps,
                                     const float* x, std::size_t x_count, float* y, std::size_t y_count) noexcept {
  x = there(x, x_count);
  if (!x) return fail(SEQCORE_INVALID_ARGUMENT, "x: null");
  return predict(model, precision, batch, steps, x, nullptr, x_count, y, y_count);
}

seqcore_status seqcore_model_predict_ids(seqcore_model model, int precision, std::int64_t batch, std::int64_t steps,
                                         const std::int32_t* ids, std::size_t ids_count, float* y,
                                         std::size_t y_count) noexcept {
  ids = there(ids, ids_count);
  if (!ids) return fail(SEQCORE_INVALID_ARGUMENT, "ids: null");
  return predict(model, precision, batch, steps, nullptr, ids, ids_count, y, y_count);
}

// ------------------------------------------------------------------------------------------------------------ streams

seqcore_status seqcore_stream_create(seqcore_model model, int precision, std::int64_t count, int threads,
                                     seqcore_stream* stream) noexcept {
  const auto* const found = models.find(number(model));
  if (!found) return no_handle("model", "model");
  return guarded([&] {
    need(stream, "stream");
    *stream =
        to_handle<seqcore_stream>(streams.add(std::make_unique<Stream>(*found, parse(precision), count, threads)));
  });
}

seqcore_status seqcore_stream_copy(seqcore_stream stream, seqcore_stream* copy) noexcept {
  const auto* const found = streams.find(number(stream));
  if (!found) return no_handle("stream", "stream");
  return guarded([&] {
    need(copy, "copy");
    *copy = to_handle<seqcore_stream>(streams.add((*found)->copy()));
  });
}

seqcore_status seqcore_stream_free(seqcore_stream stream) noexcept {
  return !stream || streams.remove(number(stream)) ? SEQCORE_OK : no_handle("stream", "stream");
}

seqcore_status seqcore_stream_get_info(seqcore_stream stream, seqcore_stream_info* info) noexcept {
  const auto* const found = streams.find(number(stream));
  if (!found) return no_handle("stream", "stream");
  return guarded([&] {
    need(info, "info");
    const Stream& s = **found;
    *info = {s.streams(), s.takes_ids(), s.features(), s.outputs(), state_count(s)};
  });
}

seqcore_status seqcore_stream_step(seqcore_stream stream, const float* x, std::size_t x_count, float* y,
                                   std::size_t y_count) noexcept {
  const auto* const found = streams.find(number(stream));
  if (!found) return no_handle("stream", "stream");
  Stream& s = **found;
  if (const seqcore_status bad = check_step(s, false, x, x_count, y, y_count)) return bad;
  return s.step(x, nullptr, y) ? SEQCORE_OK : busy();
}

seqcore_status seqcore_stream_step_id(seqcore_stream stream, std::int32_t id, float* y, std::size_t y_count) noexcept {
  const auto* const found = streams.find(number(stream));
  if (!found) return no_handle("stream", "stream");
  Stream& s = **found;
  if (const seqcore_status bad = check_step(s, true, &id, 1, y, y_count)) return bad;
  if (id < 0 || id >= s.vocabulary())
    return guarded([&] {
      throw std::invalid_argument("id: expected one in [0, " + std::to_string(s.vocabulary()) + "), got " +
                                  std::to_string(id));
    });
  return s.step(nullptr, &id, y) ? SEQCORE_OK : busy();
}

seqcore_status seqcore_stream_run(seqcore_stream stream, std::int64_t steps, const std::int64_t* which,
                                  std::size_t which_count, const float* x, std::size_t x_count, float* y,
                                  std::size_t y_count) noexcept {
  x = there(x, x_count);
  if (!x) return fail(SEQCORE_INVALID_ARGUMENT, "x: null");
  return run(stream, steps, which, which_count, x, nullptr, x_count, y, y_count);
}

seqcore_status seqcore_stream_run_ids(seqcore_stream stream, std::int64_t steps, const std::int64_t* which,
                                      std::size_t which_count, const std::int32_t* ids, std::size_t ids_count, float* y,
                                      std::size_t y_count) noexcept {
  ids = there(ids, ids_count);
  if (!ids) return fail(SEQCORE_INVALID_ARGUMENT, "ids: null");
  return run(stream, steps, which, which_count, nullptr, ids, ids_count, y, y_count);
}

seqcore_status seqcore_stream_reset(seqcore_stream stream, const std::int64_t* which,
                                    std::size_t which_count) noexcept {
  const auto* const found = streams.find(number(stream));
  if (!found) return no_handle("stream", "stream");
  return guarded([&] {
    if (which_count > 0) need(which, "which");
    (*found)->reset(which, static_cast<std::int64_t>(which_count));
  });
}

seqcore_status seqcore_stream_get_state(seqcore_stream stream, float* state, std::size_t count) noexcept {
  const auto* const found = streams.find(number(stream));
  if (!found) return no_handle("stream", "stream");
  return guarded([&] {
    const Stream& s = **found;
    state = there(state, count);
    need_count(state, count, state_count(s), "state");
    s.get_state(arrays_of(s, state));
  });
}

seqcore_status seqcore_stream_set_state(seqcore_stream stream, const float* state, std::size_t count) noexcept {
  const auto* const found = streams.find(number(stream));
  if (!found) return no_handle("stream", "stream");
  return guarded([&] {
    Stream& s = **found;
    state = there(state, count);
    need_count(state, count, state_count(s), "state");
    s.set_state(arrays_of(s, state));
  });
}

}  // extern "C"

// seqcore from C++17: a header over seqcore.h, which explains handles, arrays, threads and errors.
//
//   seqcore::Model model = seqcore::Model::load("model.safetensors");
//   seqcore::Stream stream = model.stream(seqcore::Precision::int8);
//   std::vector<float> y(stream.outputs());
//   if (const seqcore::Status status = stream.step(x, y); !status) std::cerr << status.message();
//
// step, run, reset and the states report by Status and never throw; what makes something throws seqcore::Error.
#ifndef SEQCORE_SEQCORE_HPP
#define SEQCORE_SEQCORE_HPP

#include <cstddef>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "seqcore/seqcore.h"

namespace seqcore {
inline namespace api {  // apart from what the static library has inside

// A view of elements side by side: of a vector, an array, a pointer and a length.
template <class T>
class Span {
 public:
  constexpr Span() noexcept = default;
  constexpr Span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
  template <std::size_t N>
  constexpr Span(T (&array)[N]) noexcept : data_(array), size_(N) {}
  template <class Container, class Data = decltype(std::declval<Container&>().data()),
            class = std::enable_if_t<std::is_convertible_v<std::remove_pointer_t<Data> (*)[], T (*)[]>>,
            class = decltype(std::declval<Container&>().size())>
  constexpr Span(Container&& container) noexcept : data_(container.data()), size_(container.size()) {}

  constexpr T* data() const noexcept { return data_; }
  constexpr std::size_t size() const noexcept { return size_; }
  constexpr bool empty() const noexcept { return size_ == 0; }
  constexpr T& operator[](std::size_t i) const noexcept { return data_[i]; }
  constexpr T* begin() const noexcept { return data_; }
  constexpr T* end() const noexcept { return data_ + size_; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

enum class Precision { float32 = SEQCORE_FLOAT32, bfloat16 = SEQCORE_BFLOAT16, int8 = SEQCORE_INT8 };

// Whether a call did what it should. True is success.
class [[nodiscard]] Status {
 public:
  constexpr Status(seqcore_status code) noexcept : code_(code) {}
  constexpr explicit operator bool() const noexcept { return code_ == SEQCORE_OK; }
  constexpr bool ok() const noexcept { return code_ == SEQCORE_OK; }
  constexpr seqcore_status code() const noexcept { return code_; }
  const char* name() const noexcept { return seqcore_status_name(code_); }
  // Of this thread's last failure: to be read before its next one. "" on success.
  const char* message() const noexcept { return ok() ? "" : seqcore_last_error(); }

 private:
  seqcore_status code_;
};

class Error : public std::runtime_error {
 public:
  explicit Error(Status status) : std::runtime_error(status.message()), code_(status.code()) {}
  seqcore_status code() const noexcept { return code_; }

 private:
  seqcore_status code_;
};

inline void check(Status status) {
  if (!status) throw Error(status);
}

inline const char* version() noexcept { return seqcore_version(); }
inline void set_num_threads(int threads) { check(seqcore_set_num_threads(threads)); }
inline int num_threads() noexcept { return seqcore_num_threads(); }

namespace detail {

// Owns a handle. Moved from, it holds none.
template <class Handle, seqcore_status (*kFree)(Handle) SEQCORE_NOEXCEPT>
class Owner {
 public:
  Owner() noexcept = default;
  explicit Owner(Handle handle) noexcept : handle_(handle) {}
  Owner(Owner&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owner& operator=(Owner&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owner() { static_cast<void>(kFree(handle_)); }
  Handle get() const noexcept { return handle_; }

 private:
  Handle handle_ = nullptr;
};

inline int to_c(Precision precision) noexcept { return static_cast<int>(precision); }

// What one stream and many have in common.
class Served {
 public:
  std::size_t features() const noexcept { return static_cast<std::size_t>(info_.features); }  // of a row; 1 if an id
  std::size_t outputs() const noexcept { return static_cast<std::size_t>(info_.outputs); }
  bool takes_ids() const noexcept { return info_.takes_ids != 0; }

  // The states of all recurrent layers, one after the other: h, then c where there is one, [streams][units] each.
  std::size_t state_size() const noexcept { return static_cast<std::size_t>(info_.state_count); }
  Status get_state(Span<float> state) const noexcept {
    return seqcore_stream_get_state(handle(), state.data(), state.size());
  }
  Status set_state(Span<const float> state) noexcept {
    return seqcore_stream_set_state(handle(), state.data(), state.size());
  }
  std::vector<float> state() const {
    std::vector<float> all(state_size());
    check(get_state(all));
    return all;
  }
  seqcore_stream handle() const noexcept { return stream_.get(); }

 protected:
  explicit Served(seqcore_stream stream) : stream_(stream) { check(seqcore_stream_get_info(stream, &info_)); }
  seqcore_stream copied() const {
    seqcore_stream other = nullptr;
    check(seqcore_stream_copy(handle(), &other));
    return other;
  }
  seqcore_stream_info info_ = {};

 private:
  Owner<seqcore_stream, seqcore_stream_free> stream_;
};

}  // namespace detail

// A model run one time step at a time. For one thread at a time.
class Stream : public detail::Served {
 public:
  // One step: features() floats to outputs() floats. Allocates nothing, takes no lock, makes no system call (one thread).
  Status step(Span<const float> x, Span<float> y) noexcept {
    return seqcore_stream_step(handle(), x.data(), x.size(), y.data(), y.size());
  }
  Status step(std::int32_t id, Span<float> y) noexcept {
    return seqcore_stream_step_id(handle(), id, y.data(), y.size());
  }
  // A block of steps, [steps][features()] to [steps][outputs()].
  Status run(Span<const float> x, Span<float> y) noexcept {
    return seqcore_stream_run(handle(), static_cast<std::int64_t>(x.size() / features()), nullptr, 0, x.data(),
                              x.size(), y.data(), y.size());
  }
  Status run(Span<const std::int32_t> ids, Span<float> y) noexcept {
    return seqcore_stream_run_ids(handle(), static_cast<std::int64_t>(ids.size()), nullptr, 0, ids.data(), ids.size(),
                                  y.data(), y.size());
  }
  Status reset() noexcept { return seqcore_stream_reset(handle(), nullptr, 0); }
  Stream copy() const { return Stream(copied()); }

 private:
  friend class Model;
  explicit Stream(seqcore_stream stream) : Served(stream) {}
};

// Many independent streams, advanced together or in any subset: one pass over the weights for all.
class Streams : public detail::Served {
 public:
  std::size_t size() const noexcept { return static_cast<std::size_t>(info_.streams); }
  // One step of the streams in `which`, each at most once, a row of x and of y for each. An empty `which` is nobody.
  Status step(Span<const float> x, Span<const std::int64_t> which, Span<float> y) noexcept {
    return run(x, listed(which), which.size(), y);
  }
  Status step(Span<const std::int32_t> ids, Span<const std::int64_t> which, Span<float> y) noexcept {
    return run(ids, listed(which), which.size(), y);
  }
  // One step of all of them.
  Status step(Span<const float> x, Span<float> y) noexcept { return run(x, nullptr, 0, y); }
  Status step(Span<const std::int32_t> ids, Span<float> y) noexcept { return run(ids, nullptr, 0, y); }
  Status reset() noexcept { return seqcore_stream_reset(handle(), nullptr, 0); }
  Status reset(Span<const std::int64_t> which) noexcept {
    return seqcore_stream_reset(handle(), listed(which), which.size());
  }
  Streams copy() const { return Streams(copied()); }

 private:
  // In C a list that is NULL means all; an empty vector may have no address.
  static const std::int64_t* listed(Span<const std::int64_t> which) noexcept {
    static constexpr std::int64_t kNobody = 0;
    return which.empty() ? &kNobody : which.data();
  }
  Status run(Span<const float> x, const std::int64_t* which, std::size_t count, Span<float> y) noexcept {
    return seqcore_stream_run(handle(), 1, which, count, x.data(), x.size(), y.data(), y.size());
  }
  Status run(Span<const std::int32_t> ids, const std::int64_t* which, std::size_t count, Span<float> y) noexcept {
    return seqcore_stream_run_ids(handle(), 1, which, count, ids.data(), ids.size(), y.data(), y.size());
  }
  friend class Model;
  explicit Streams(seqcore_stream stream) : Served(stream) {}
};

// A model that Python trained and saved. Any number of threads may use one at once.
class Model {
 public:
  static Model load(const std::string& path) {
    seqcore_model model = nullptr;
    check(seqcore_model_load(path.c_str(), &model));
    return Model(model);
  }
  static Model parse(Span<const unsigned char> bytes) {  // of such a file
    seqcore_model model = nullptr;
    check(seqcore_model_parse(bytes.data(), bytes.size(), &model));
    return Model(model);
  }

  const seqcore_model_info& info() const noexcept { return info_; }
  bool takes_ids() const noexcept { return info_.takes_ids != 0; }
  // Elements of `batch` samples of `steps` time steps, steps being ignored where the model's shape has its own; SIZE_MAX
  // where there are more than that. Of outputs none where the input is too short for a layer, which predict tells.
  std::size_t input_size(std::size_t batch, std::size_t steps) const noexcept {
    return elements(info_.input_shape, info_.input_rank, batch, steps);
  }
  std::size_t output_size(std::size_t batch, std::size_t steps) const noexcept {
    std::int64_t left = 0;
    const auto most = static_cast<std::size_t>(INT64_MAX);
    const auto given = static_cast<std::int64_t>(steps < most ? steps : most);
    if (seqcore_model_output_steps(handle(), given, &left) != SEQCORE_OK) return 0;
    return elements(info_.output_shape, info_.output_rank, batch, static_cast<std::size_t>(left));
  }

  // The outputs, [batch][…]. Throws Error, and std::bad_alloc where there is no room for them.
  std::vector<float> predict(Span<const float> x, std::size_t batch, std::size_t steps,
                             Precision precision = Precision::float32) const {
    std::vector<float> y = outputs(x.size(), batch, steps);
    check(predict(x, batch, steps, y, precision));
    return y;
  }
  std::vector<float> predict(Span<const std::int32_t> ids, std::size_t batch, std::size_t steps,
                             Precision precision = Precision::float32) const {
    std::vector<float> y = outputs(ids.size(), batch, steps);
    check(predict(ids, batch, steps, y, precision));
    return y;
  }
  // To y, whose size must be output_size.
  Status predict(Span<const float> x, std::size_t batch, std::size_t steps, Span<float> y,
                 Precision precision = Precision::float32) const noexcept {
    return seqcore_model_predict(handle(), detail::to_c(precision), static_cast<std::int64_t>(batch),
                                 static_cast<std::int64_t>(steps), x.data(), x.size(), y.data(), y.size());
  }
  Status predict(Span<const std::int32_t> ids, std::size_t batch, std::size_t steps, Span<float> y,
                 Precision precision = Precision::float32) const noexcept {
    return seqcore_model_predict_ids(handle(), detail::to_c(precision), static_cast<std::int64_t>(batch),
                                     static_cast<std::int64_t>(steps), ids.data(), ids.size(), y.data(), y.size());
  }

  // Throws Error where the model cannot run step by step, with the reason.
  Stream stream(Precision precision = Precision::float32, int threads = 1) const {
    return Stream(create(precision, 1, threads));
  }
  Streams streams(std::size_t count, Precision precision = Precision::float32, int threads = 1) const {
    return Streams(create(precision, static_cast<std::int64_t>(count), threads));
  }
  seqcore_model handle() const noexcept { return model_.get(); }

 private:
  explicit Model(seqcore_model model) : model_(model) { check(seqcore_model_get_info(model, &info_)); }
  seqcore_stream create(Precision precision, std::int64_t count, int threads) const {
    seqcore_stream stream = nullptr;
    check(seqcore_stream_create(handle(), detail::to_c(precision), count, threads, &stream));
    return stream;
  }
  static std::size_t elements(const std::int64_t* shape, int rank, std::size_t batch, std::size_t steps) noexcept {
    std::size_t n = batch;
    bool over = false;
    for (int i = 0; i < rank; i++) {
      const std::size_t times = shape[i] < 0 ? steps : static_cast<std::size_t>(shape[i]);
      over = times > 0 && (over || n > SIZE_MAX / times);
      n *= times;
    }
    return over ? SIZE_MAX : n;
  }
  // Room for the outputs; none where the input's size is wrong, which is for predict to say.
  std::vector<float> outputs(std::size_t given, std::size_t batch, std::size_t steps) const {
    const std::size_t n = given == input_size(batch, steps) ? output_size(batch, steps) : 0;
    if (n > std::vector<float>().max_size()) throw std::bad_alloc();
    return std::vector<float>(n);
  }

  detail::Owner<seqcore_model, seqcore_model_free> model_;
  seqcore_model_info info_ = {};
};

}  // namespace api
}  // namespace seqcore

#endif

#include "base/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string_view>

#include "base/files.h"
#include "base/json.h"
#include "base/json_reader.h"
#include "base/utf8.h"

namespace seqcore {
namespace {

constexpr std::uint64_t kMaxHeader = 8 << 20;
constexpr std::size_t kMaxTensors = 65536;
constexpr std::size_t kMaxMetadata = 1024;
constexpr std::size_t kMaxRank = 8;
constexpr std::string_view kMetadata = "__metadata__";

[[noreturn]] void bad(const std::string& what) { throw std::invalid_argument("safetensors: " + what); }

// The bytes that a tensor of this dtype and shape has. Throws for unknown dtypes, negative sizes, overflow.
std::uint64_t byte_count(const StoredTensor& tensor) {
  constexpr std::pair<std::string_view, std::uint64_t> kSizes[] = {{"F32", 4}, {"F64", 8}, {"I32", 4},
                                                                   {"I64", 8}, {"U64", 8}, {"U8", 1}};
  const auto* size =
      std::find_if(std::begin(kSizes), std::end(kSizes), [&](const auto& s) { return s.first == tensor.dtype; });
  const std::string who = "tensor " + quoted(tensor.name);
  if (size == std::end(kSizes)) {
    bad(who + ": dtype must be F32, F64, I32, I64, U64 or U8, got " + quoted(tensor.dtype));
  }
  if (tensor.shape.size() > kMaxRank) bad(who + ": at most 8 axes, got " + std::to_string(tensor.shape.size()));
  std::uint64_t bytes = size->second;
  for (const std::int64_t n : tensor.shape) {
    if (n < 0) bad(who + ": a negative size in its shape");
    if (n > 0 && bytes > std::uint64_t{std::numeric_limits<std::int64_t>::max()} / static_cast<std::uint64_t>(n)) {
      bad(who + ": its shape is too large");
    }
    bytes *= static_cast<std::uint64_t>(n);
  }
  return bytes;
}

// ------------------------------------------------------------------------------------------------------------- reading

struct Header {
  StoredFile file;                   // tensors without data
  std::vector<std::uint64_t> begin;  // where each tensor starts after the header
  std::vector<std::uint32_t> order;  // the tensors as they lie in the file
};

std::int64_t read_size(JsonReader& in) {
  const JsonReader::Number n = in.number();
  const std::int64_t* const size = std::get_if<std::int64_t>(&n);
  if (!size || *size < 0) {
    bad("header: a size must be an integer not below 0, got " +
        std::visit([](auto value) { return Json(value).dump(); }, n));
  }
  return *size;
}

// One entry of the header; returns its data_offsets.
std::pair<std::uint64_t, std::uint64_t> read_entry(JsonReader& in, StoredTensor& tensor) {
  const std::string who = "tensor " + quoted(tensor.name);
  std::vector<std::uint64_t> offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
  const auto once = [&](bool& has, const char* key) {
    if (has) bad(who + ": duplicate key '" + key + "'");
    has = true;
  };
  in.object([&](const std::string& key) {
    if (key == "dtype") {
      once(has_dtype, "dtype");
      tensor.dtype = in.string();
    } else if (key == "shape") {
      once(has_shape, "shape");
      in.array([&] {
        if (tensor.shape.size() == kMaxRank) bad(who + ": at most 8 axes");
        tensor.shape.push_back(read_size(in));
      });
    } else if (key == "data_offsets") {
      once(has_offsets, "data_offsets");
      in.array([&] {
        if (offsets.size() == 2) bad(who + ": data_offsets must be two numbers");
        offsets.push_back(static_cast<std::uint64_t>(read_size(in)));
      });
    } else {
      bad(who + ": unknown key " + quoted(key));
    }
  });
  if (!has_dtype || !has_shape || offsets.size() != 2) bad(who + ": must have dtype, shape and two data_offsets");
  const std::uint64_t bytes = byte_count(tensor);
  if (offsets[1] < offsets[0] || offsets[1] - offsets[0] != bytes) {
    bad(who + ": dtype and shape make " + std::to_string(bytes) + " bytes, but its data_offsets are " +
        std::to_string(offsets[0]) + " and " + std::to_string(offsets[1]));
  }
  return {offsets[0], offsets[1]};
}

Header read_header(std::string_view text, std::uint64_t data_size) {
  Header header;
  std::vector<StoredTensor>& tensors = header.file.tensors;
  constexpr std::size_t shortest = 50;  // "":{"dtype":"U8","shape":[],"data_offsets":[0,0]},
  tensors.reserve(std::min(text.size() / shortest + 1, kMaxTensors));
  std::vector<std::uint64_t> ends;
  bool has_metadata = false;
  JsonReader in(text);
  if (text.substr(0, 1) != "{") in.fail("'{'");
  in.object([&](std::string&& key) {
    if (key == kMetadata) {
      if (has_metadata) bad("header: duplicate key '__metadata__'");
      has_metadata = true;
      in.object([&](std::string&& name) {
        if (header.file.metadata.size() == kMaxMetadata) bad("header: more than 1024 entries of metadata");
        if (in.peek() != '"') in.fail("a string, as the metadata's value");
        header.file.metadata.emplace_back(std::move(name), in.string());
      });
      return;
    }
    if (tensors.size() == kMaxTensors) bad("header: more than 65536 tensors");
    tensors.emplace_back();
    tensors.back().name = std::move(key);
    const auto [begin, end] = read_entry(in, tensors.back());
    header.begin.push_back(begin);
    ends.push_back(end);
  });
  in.end();

  std::vector<std::string_view> names;
  for (const auto& [name, value] : header.file.metadata) names.push_back(name);
  check_unique(std::move(names));
  names.clear();
  for (const StoredTensor& tensor : tensors) names.push_back(tensor.name);
  check_unique(std::move(names));

  header.order.resize(tensors.size());
  std::iota(header.order.begin(), header.order.end(), 0u);
  std::sort(header.order.begin(), header.order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return std::pair(header.begin[a], ends[a]) < std::pair(header.begin[b], ends[b]);
  });
  std::uint64_t at = 0;
  for (const std::uint32_t i : header.order) {
    if (header.begin[i] != at) {
      bad("tensor " + quoted(tensors[i].name) + ": starts at " + std::to_string(header.begin[i]) + ", expected " +
          std::to_string(at) + (header.begin[i] < at ? " (overlap)" : " (hole)"));
    }
    at = ends[i];
  }
  if (at != data_size) {
    bad("the tensors have " + std::to_string(at) + " bytes, but " + std::to_string(data_size) + " follow the header");
  }
  return header;
}

// Reads a whole file of `size` bytes through `read(destination, count)`, in order.
template <class Read>
StoredFile read_all(std::uint64_t size, Read&& read) {
  unsigned char prefix[8];
  if (size < sizeof prefix) bad("a file of " + std::to_string(size) + " bytes is too short");
  read(prefix, sizeof prefix);
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | prefix[i];
  if (length > kMaxHeader) bad("a header of " + std::to_string(length) + " bytes, at most 8 MiB are read");
  if (length > size - sizeof prefix) {
    bad("a header of " + std::to_string(length) + " bytes in a file of " + std::to_string(size));
  }
  Header header;
  {
    std::string text(static_cast<std::size_t>(length), '\0');
    read(text.data(), text.size());
    header = read_header(text, size - sizeof prefix - length);
  }
  for (const std::uint32_t i : header.order) {
    StoredTensor& tensor = header.file.tensors[i];
    tensor.data.resize(static_cast<std::size_t>(byte_count(tensor)));
    read(tensor.data.data(), tensor.data.size());
  }
  return std::move(header.file);
}

// ------------------------------------------------------------------------------------------------------------- writing

std::string header_text(const StoredFile& file) {
  if (file.tensors.size() > kMaxTensors) bad("at most 65536 tensors can be written");
  if (file.metadata.size() > kMaxMetadata) bad("at most 1024 entries of metadata can be written");
  std::vector<std::string_view> names{kMetadata};
  for (const StoredTensor& tensor : file.tensors) names.push_back(tensor.name);
  check_unique(std::move(names));
  names.clear();
  for (const auto& [name, value] : file.metadata) names.push_back(name);
  check_unique(std::move(names));

  std::string text = "{";
  if (!file.metadata.empty()) {
    Json::Object metadata;
    for (const auto& [name, value] : file.metadata) metadata.emplace_back(name, value);
    text += Json(std::string(kMetadata)).dump() + ":" + Json(std::move(metadata)).dump() + ",";
  }
  std::int64_t at = 0;
  for (const StoredTensor& tensor : file.tensors) {
    const std::uint64_t bytes = byte_count(tensor);
    if (bytes != tensor.data.size()) {
      bad("tensor " + quoted(tensor.name) + ": dtype and shape make " + std::to_string(bytes) + " bytes, but it has " +
          std::to_string(tensor.data.size()));
    }
    const std::int64_t end = at + static_cast<std::int64_t>(bytes);
    const Json::Object entry{{"dtype", tensor.dtype},
                             {"shape", Json::Array(tensor.shape.begin(), tensor.shape.end())},
                             {"data_offsets", Json::Array{at, end}}};
    text += Json(tensor.name).dump() + ":" + Json(entry).dump() + ",";
    at = end;
  }
  if (text.size() > 1) text.pop_back();
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxHeader) bad("a header of " + std::to_string(text.size()) + " bytes, at most 8 MiB are written");
  return text;
}

}  // namespace

StoredFile parse_safetensors(const std::byte* data, std::size_t size) {
  return read_all(size, [&](void* to, std::size_t n) {
    if (n > 0) std::memcpy(to, data, n);
    data += n;
  });
}

StoredFile read_safetensors(const std::string& path) {
  // O_NONBLOCK, or opening a pipe would wait for its writer.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) system_failure("cannot open", path);
  struct stat status;
  if (::fstat(file.get(), &status) != 0) system_failure("cannot read", path);
  if (S_ISDIR(status.st_mode)) system_failure("cannot read", path, EISDIR);
  if (!S_ISREG(status.st_mode)) bad(quoted(path) + " is no regular file");
  return read_all(static_cast<std::uint64_t>(status.st_size), [&](void* to, std::size_t count) {
    auto* bytes = static_cast<char*>(to);
    while (count > 0) {
      const ssize_t n = ::read(file.get(), bytes, std::min(count, kMaxTransfer));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) system_failure("cannot read", path);
      if (n == 0) bad(quoted(path) + " became shorter while it was read");
      bytes += n;
      count -= static_cast<std::size_t>(n);
    }
  });
}

void write_safetensors(const std::string& path, const StoredFile& file) {
  const std::string text = header_text(file);
  unsigned char prefix[8];
  const std::uint64_t length = text.size();
  for (int i = 0; i < 8; ++i) prefix[i] = static_cast<unsigned char>(length >> (8 * i));
  std::vector<Bytes> pieces{{prefix, sizeof prefix}, {text.data(), text.size()}};
  for (const StoredTensor& tensor : file.tensors) pieces.push_back({tensor.data.data(), tensor.data.size()});
  write_file(path, pieces);
}

}  // namespace seqcore

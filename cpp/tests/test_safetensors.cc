// Files: what is written reads back, nothing that is not a safetensors file is accepted, and a save is all or nothing.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "base/safetensors.h"
#include "says.h"

using namespace seqcore;
namespace fs = std::filesystem;

namespace {

std::string folder;  // of this run, empty before each test

StoredTensor tensor(std::string name, std::string dtype, std::vector<std::int64_t> shape, std::size_t bytes,
                    int first = 0) {
  StoredTensor t{std::move(name), std::move(dtype), std::move(shape), std::vector<std::byte>(bytes)};
  for (std::size_t i = 0; i < bytes; ++i) t.data[i] = static_cast<std::byte>(first + static_cast<int>(i));
  return t;
}

StoredFile sample() {
  return {{tensor("lstm/kernel", "F32", {2, 3}, 24), tensor("naïve \"名\"\n../x", "U8", {5}, 5, 7),
           tensor("scalar", "F64", {}, 8), tensor("empty", "I64", {0, 4}, 0), tensor("steps", "U64", {1}, 8, 99),
           tensor("labels", "I32", {1, 1, 1, 1, 1, 1, 1, 2}, 8)},
          {{"format", "seqcore"}, {"description", "{\"layers\": [\"é\"]}\n"}}};
}

bool same(const StoredFile& a, const StoredFile& b) {
  if (a.metadata != b.metadata || a.tensors.size() != b.tensors.size()) return false;
  for (std::size_t i = 0; i < a.tensors.size(); ++i) {
    const StoredTensor &x = a.tensors[i], &y = b.tensors[i];
    if (x.name != y.name || x.dtype != y.dtype || x.shape != y.shape || x.data != y.data) return false;
  }
  return true;
}

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

StoredFile parse(const std::string& bytes) {
  return parse_safetensors(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size());
}

// A file of this header and so many bytes of data.
std::string file_of(const std::string& header, std::size_t data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(header.size() >> (8 * i) & 0xFF));
  return bytes + header + std::string(data, 'd');
}

std::size_t files_in(const std::string& path) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
}

void test_round_trip() {
  const std::string path = folder + "/model.safetensors";
  for (const StoredFile& file : {sample(), StoredFile{}, StoredFile{{}, {{"only", "metadata"}}}}) {
    write_safetensors(path, file);
    CHECK(same(read_safetensors(path), file));
    const std::string bytes = contents(path);
    CHECK(same(parse(bytes), file));
    CHECK(bytes.size() >= 10 && bytes[8] == '{' && static_cast<unsigned char>(bytes[0]) % 8 == 0);
  }
  CHECK(files_in(folder) == 1);
  write_safetensors(path, {{tensor("a", "F32", {1}, 4)}, {{"k", "v"}}});
  std::string header = R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  CHECK(contents(path) == file_of(header, 0) + std::string("\0\1\2\3", 4));
  const mode_t old = umask(027);
  write_safetensors(folder + "/private", sample());
  umask(old);
  struct stat status;
  CHECK(stat((folder + "/private").c_str(), &status) == 0 && (status.st_mode & 0777) == 0640);
  CHECK(chdir(folder.c_str()) == 0);
  write_safetensors("relative", sample());
  CHECK(same(read_safetensors("relative"), sample()));
}

void test_truncated_and_flipped() {
  const std::string path = folder + "/whole";
  write_safetensors(path, sample());
  const std::string whole = contents(path);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    CHECK_THROWS(parse(whole.substr(0, n)), std::invalid_argument);
    std::ofstream(folder + "/cut", std::ios::binary) << whole.substr(0, n);
    CHECK_THROWS(read_safetensors(folder + "/cut"), std::invalid_argument);
  }
  CHECK_SAYS(std::invalid_argument, "follow the header", parse(whole + "x"));
  // A changed byte is either refused or gives a file that holds together.
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (const int flip : {1, 2, 4, 8, 16, 32, 64, 128}) {
      std::string changed = whole;
      changed[i] = static_cast<char>(changed[i] ^ flip);
      try {
        std::size_t bytes = 0;
        for (const StoredTensor& t : parse(changed).tensors) bytes += t.data.size();
        CHECK(bytes == 53);
      } catch (const std::invalid_argument&) {
      }
    }
  }
}

void test_hostile_headers() {
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  CHECK(parse(file_of(good, 8)).tensors.size() == 1);
  CHECK(parse(file_of(good + "  \n", 8)).tensors.size() == 1);
  const std::string mixed =  // any order of keys and of tensors
      R"({"b":{"data_offsets":[4,5],"shape":[1],"dtype":"U8"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})";
  CHECK(parse(file_of(mixed, 5)).tensors[1].name == "a");
  const auto entry = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return "{\"a\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
  };
  struct {
    std::string header;
    std::size_t data;
    const char* says;
  } const cases[] = {
      {"", 0, "byte 0: expected '{'"},
      {" {}", 0, "byte 0: expected '{'"},
      {"[]", 0, "expected '{'"},
      {"\"a\"", 0, "expected '{'"},
      {"{}x", 0, "expected the end"},
      {std::string("{}\0", 3), 0, "expected the end"},
      {"{}", 1, "have 0 bytes, but 1 follow"},
      {good, 7, "have 8 bytes, but 7 follow"},
      {good, 9, "have 8 bytes, but 9 follow"},
      {entry("F16", "[2]", "[0,4]"), 4, "dtype must be F32, F64, I32, I64, U64 or U8, got 'F16'"},
      {entry("f32", "[2]", "[0,8]"), 8, "got 'f32'"},
      {entry("F32", "[-2]", "[0,8]"), 8, "not below 0, got -2"},
      {entry("F32", "[2.0]", "[0,8]"), 8, "must be an integer not below 0, got 2.0"},
      {entry("F32", "[\"2\"]", "[0,8]"), 8, "expected a digit"},
      {entry("F32", "2", "[0,8]"), 8, "expected '['"},
      {entry("F32", "[3]", "[0,8]"), 8, "make 12 bytes"},
      {entry("F32", "[2]", "[8,0]"), 8, "make 8 bytes, but its data_offsets are 8 and 0"},
      {entry("F32", "[2]", "[0]"), 8, "two data_offsets"},
      {entry("F32", "[2]", "[0,8,8]"), 8, "must be two numbers"},
      {entry("F32", "[2]", "[-8,0]"), 8, "not below 0"},
      {entry("F32", "[2]", "[4,12]"), 12, "starts at 4, expected 0 (hole)"},
      {entry("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, "at most 8 axes"},
      {entry("F32", "[4611686018427387904,4]", "[0,0]"), 0, "its shape is too large"},
      {entry("U8", "[4294967296,4294967296]", "[0,0]"), 0, "its shape is too large"},
      {entry("U8", "[9223372036854775808]", "[0,0]"), 0, "an integer of 64 bits"},
      {entry("U8", "[9223372036854775807]", "[0,9223372036854775807]"), 9, "but 9 follow"},
      {entry("F32", "[2305843009213693951,0]", "[0,0]"), 1, "have 0 bytes, but 1 follow"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
       2, "duplicate key 'a'"},
      {R"({"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[],"data_offsets":[1,2]}})",
       2, "duplicate key 'a'"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       3, "'b': starts at 1, expected 2 (overlap)"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
       2, "(overlap)"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       3, "'b': starts at 2, expected 1 (hole)"},
      {R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, "duplicate key 'dtype'"},
      {R"({"a":{"shape":[1],"shape":[1],"dtype":"U8","data_offsets":[0,1]}})", 1, "duplicate key 'shape'"},
      {R"({"a":{"data_offsets":[0],"data_offsets":[1],"dtype":"U8","shape":[1]}})", 1, "duplicate key 'data_offsets'"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", 1, "unknown key 'x'"},
      {R"({"a":{"dtype":"U8","shape":[1]}})", 1, "must have dtype, shape and two data_offsets"},
      {R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1, "must have dtype"},
      {R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1, "must have dtype"},
      {R"({"a":[]})", 0, "expected '{'"},
      {R"({"__metadata__":[]})", 0, "expected '{'"},
      {R"({"__metadata__":{"a":1}})", 0, "expected a string, as the metadata's value"},
      {R"({"__metadata__":{"a":{"b":"c"}}})", 0, "expected a string, as the metadata's value"},
      {R"({"__metadata__":{"a":"b","a":"c"}})", 0, "duplicate key 'a'"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "duplicate key '__metadata__'"},
      {"{\"\xff\":{}}", 0, "expected UTF-8"},
      {std::string(1000000, '['), 0, "expected '{'"},
      {"{\"a\":" + std::string(1000000, '{'), 0, "expected a key"},
  };
  for (const auto& bad : cases) CHECK_SAYS(std::invalid_argument, bad.says, parse(file_of(bad.header, bad.data)));

  CHECK_SAYS(std::invalid_argument, "at most 8 MiB", parse(file_of(std::string((8 << 20) + 1, ' '), 0)));
  CHECK_SAYS(std::invalid_argument, "18446744073709551615", parse(std::string(8, '\xff') + "{}"));
  CHECK_SAYS(std::invalid_argument, "a header of 3 bytes in a file of 10",
             parse(std::string("\3\0\0\0\0\0\0\0{}", 10)));
  std::string many = "{";
  for (int i = 0; i < 65537; ++i) {
    many += "\"" + std::to_string(i) + "\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]},";
  }
  CHECK_SAYS(std::invalid_argument, "more than 65536 tensors", parse(file_of(many + "\"x\":{}}", 1)));
  std::string metadata = "{\"__metadata__\":{";
  for (int i = 0; i < 1025; ++i) metadata += "\"" + std::to_string(i) + "\":\"\",";
  CHECK_SAYS(std::invalid_argument, "1024 entries", parse(file_of(metadata + "\"x\":\"\"}}", 0)));
}

void test_refused_writes() {
  const std::string path = folder + "/old";
  write_safetensors(path, sample());
  const std::string before = contents(path);
  const std::pair<StoredFile, const char*> cases[] = {
      {{{tensor("a", "F32", {2}, 4)}, {}}, "make 8 bytes, but it has 4"},
      {{{tensor("a", "F16", {2}, 4)}, {}}, "got 'F16'"},
      {{{tensor("a", "U8", {-1}, 0)}, {}}, "a negative size"},
      {{{tensor("a", "U8", {1, 1, 1, 1, 1, 1, 1, 1, 1}, 1)}, {}}, "at most 8 axes"},
      {{{tensor("a", "U8", {1}, 1), tensor("a", "U8", {1}, 1)}, {}}, "duplicate key 'a'"},
      {{{tensor("__metadata__", "U8", {1}, 1)}, {}}, "duplicate key '__metadata__'"},
      {{{}, {{"a", "b"}, {"a", "c"}}}, "duplicate key 'a'"},
      {{{tensor("\xff", "U8", {1}, 1)}, {}}, "not UTF-8"},
      {{{}, {{"a", std::string(9 << 20, 'x')}}}, "at most 8 MiB"},
  };
  for (const auto& bad : cases) CHECK_SAYS(std::invalid_argument, bad.second, write_safetensors(path, bad.first));
  CHECK_SAYS(std::system_error, "No such file or directory", write_safetensors(folder + "/no/such", sample()));
  CHECK_SAYS(std::system_error, "No such file or directory", write_safetensors("", sample()));
  CHECK_SAYS(std::system_error, "Not a directory", write_safetensors(path + "/x", sample()));
  CHECK_SAYS(std::system_error, "Is a directory", write_safetensors(folder, sample()));
  CHECK_SAYS(std::system_error, "'/dev/null'", write_safetensors("/dev/null", sample()));
  CHECK_SAYS(std::system_error, "", write_safetensors("/proc/seqcore", sample()));
  CHECK_SAYS(std::system_error, "File name too long",
             write_safetensors(folder + "/" + std::string(300, 'x'), sample()));
  CHECK(files_in(folder) == 1 && contents(path) == before);
  const std::string longest = folder + "/" + std::string(255, 'x');
  write_safetensors(longest, sample());
  CHECK(same(read_safetensors(longest), sample()));

  CHECK_SAYS(std::system_error, "No such file or directory", read_safetensors(folder + "/none"));
  CHECK_SAYS(std::system_error, "Is a directory", read_safetensors(folder));
  CHECK_SAYS(std::invalid_argument, "no regular file", read_safetensors("/dev/zero"));
  CHECK(mkfifo((folder + "/pipe").c_str(), 0600) == 0);
  CHECK_SAYS(std::invalid_argument, "no regular file", read_safetensors(folder + "/pipe"));
  CHECK_SAYS(std::system_error, "\\xff", read_safetensors(folder + "/\xff"));
}

// Runs body in a child; true if it returned true.
template <class F>
bool in_child(F&& body) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) _exit(body() ? 0 : 1);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// The disk's end, in the middle of the data: the old file stays, no other is left.
void test_no_space() {
  const std::string path = folder + "/model";
  write_safetensors(path, sample());
  const StoredFile large{{tensor("large", "U8", {1 << 20}, 1 << 20)}, {}};
  for (const rlim_t limit : {0, 5, 100, 1000, 100000, 1 << 20}) {
    CHECK(in_child([&] {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit little = {limit, limit};
      if (setrlimit(RLIMIT_FSIZE, &little) != 0) return false;
      try {
        write_safetensors(path, large);
      } catch (const std::system_error& error) {
        return error.code().value() == EFBIG;
      }
      return false;
    }));
    CHECK(files_in(folder) == 1 && same(read_safetensors(path), sample()));
  }
  // A folder that may not be written. (Root may write everywhere: as somebody else then.)
  CHECK(chmod(folder.c_str(), 0555) == 0);
  CHECK(in_child([&] {
    if (geteuid() == 0 && (setegid(65534) != 0 || seteuid(65534) != 0)) return false;
    try {
      write_safetensors(path, large);
    } catch (const std::system_error& error) {
      return error.code().value() == EACCES;
    }
    return false;
  }));
  CHECK(chmod(folder.c_str(), 0755) == 0);
  CHECK(files_in(folder) == 1 && same(read_safetensors(path), sample()));
}

// Killed at any moment while it saves: what lies there is one save or the other, whole.
void test_killed() {
  const std::string path = folder + "/model";
  const StoredFile saves[2] = {{{tensor("a", "U8", {300000}, 300000, 1)}, {{"save", "0"}}},
                               {{tensor("b", "F32", {50000}, 200000, 2)}, {{"save", "1"}}}};
  write_safetensors(path, saves[0]);
  for (int round = 0; round < 40; ++round) {
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
      for (int i = 0;; ++i) write_safetensors(path, saves[i % 2]);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(2000 + 377 * round));
    CHECK(kill(child, SIGKILL) == 0);
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status));
    const StoredFile found = read_safetensors(path);
    CHECK(same(found, saves[0]) || same(found, saves[1]));
  }
}

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(thread_sanitizer) || __has_feature(address_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

std::int64_t peak_bytes() {  // of resident memory
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} * 1024;
}

// Reading needs the file and 16 MiB, whatever the header holds. (Sanitizers need more for themselves.)
void test_memory() {
  const std::string path = folder + "/file";
  std::string most = "{", names = most, numbers = R"({"a":{"dtype":"U8","shape":[)", text = R"({"__metadata__":{"a":")";
  for (int i = 0; i < 65536; ++i) {
    const std::string at = std::to_string(i), next = std::to_string(i + 1);
    most += "\"" + at + "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[" + at + "," + next + "]},";
  }
  while (names.size() < (8 << 20) - 100) names += "\"aa\":{},";
  while (numbers.size() < (8 << 20) - 100) numbers += "1,";
  text += std::string((8 << 20) - 100, 'x') + "\"}}";
  most.back() = '}';
  const std::pair<std::string, std::size_t> files[] = {
      {most, 65536},
      {names, 0},
      {numbers, 0},
      {text, 0},
      {R"({"a":{"dtype":"U8","shape":[100000000],"data_offsets":[0,100000000]}})", 100000000}};
  for (const auto& file : files) {
    std::ofstream(path, std::ios::binary) << file_of(file.first, file.second);
    const auto size = static_cast<std::int64_t>(fs::file_size(path));
    CHECK(in_child([&] {  // its own peak begins at what it has of its parent
      const std::int64_t before = peak_bytes();
      try {
        (void)read_safetensors(path);
      } catch (const std::invalid_argument&) {
      }
      return peak_bytes() - before <= size + (16 << 20);
    }));
  }
}

}  // namespace

int main() {
  char name[] = "/tmp/seqcore-test-XXXXXX";
  if (mkdtemp(name) == nullptr || chmod(name, 0755) != 0) return 1;
  const fs::path root = name;
  int count = 0;
  const auto in_folder = [&](void (*test)()) {
    folder = (root / std::to_string(count++)).string();
    fs::create_directory(folder);
    test();
  };
  in_folder(test_round_trip);
  in_folder(test_truncated_and_flipped);
  in_folder(test_hostile_headers);
  in_folder(test_refused_writes);
  in_folder(test_no_space);
  in_folder(test_killed);
  if (!kSanitized) in_folder(test_memory);
  fs::current_path("/");
  fs::remove_all(root);
  return check::report();
}

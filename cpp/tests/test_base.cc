// Arena, Philox, JSON.
#include <pthread.h>

#include <clocale>
#include <cmath>
#include <cstring>
#include <limits>
#include <locale>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>

#include "base/arena.h"
#include "base/json.h"
#include "base/philox.h"
#include "says.h"

using namespace seqcore;

namespace {

void test_arena() {
  Arena arena;
  CHECK(arena.capacity() == 0);
  char* before = nullptr;
  for (int round = 0; round < 3; ++round) {
    arena.reset();
    const std::size_t capacity = arena.capacity();
    for (std::int64_t n : {0, 1, 15, 16, 17, 100000, 3, 1000000}) {
      float* p = arena.floats(n);
      CHECK(reinterpret_cast<std::uintptr_t>(p) % 64 == 0);
      for (std::int64_t i = 0; i < n; ++i) p[i] = 1;
    }
    const float* z = arena.zeros(1000);
    for (int i = 0; i < 1000; ++i) CHECK(z[i] == 0);
    auto* c = arena.allocate<char>(1);
    CHECK(c != before || round > 0);
    before = c;
    CHECK(round == 0 || arena.capacity() == capacity);  // the same sequence fits
  }
  arena.reset();
  const std::size_t capacity = arena.capacity();
  float* first = arena.floats(10);
  float* second = arena.floats(10);
  CHECK(second - first == 16);
  for (const std::int64_t n : {std::int64_t{-1}, std::numeric_limits<std::int64_t>::max(), std::int64_t{1} << 61}) {
    CHECK_SAYS(std::bad_alloc, "", arena.floats(n));
  }
  Arena moved = std::move(arena);
  CHECK(moved.capacity() == capacity);
  moved.release();
  CHECK(moved.capacity() == 0);
  CHECK(moved.floats(5) != nullptr);
}

void test_philox() {
  const auto same = [](const Philox::Block& b, std::uint32_t w0, std::uint32_t w1, std::uint32_t w2, std::uint32_t w3) {
    return b.word[0] == w0 && b.word[1] == w1 && b.word[2] == w2 && b.word[3] == w3;
  };
  // Random123's known answers (kat_vectors, philox4x32 10).
  constexpr std::uint64_t ones = ~std::uint64_t{0};
  CHECK(same(Philox{0, 0}.block(0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  CHECK(same(Philox{ones, ones}.block(ones), 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  CHECK(same(Philox{0x299f31d0a4093822, 0x0370734413198a2e}.block(0x85a308d3243f6a88), 0xd16cfe09, 0x94fdcceb,
             0x5001e420, 0x24126ea1));
  const Philox stream{3, 5};
  double sum = 0;
  for (std::uint64_t e = 0; e < 100000; ++e) {
    const float u = stream.uniform(e);
    CHECK(u >= 0 && u < 1 && stream.word(e) == stream.block(e / 4).word[e % 4]);
    sum += u;
  }
  CHECK(std::abs(sum / 100000 - 0.5) < 0.004);
  CHECK(mix_seed(1, 2, 3) != mix_seed(1, 3, 2) && mix_seed(1, 2) != mix_seed(2, 1) && mix_seed(0, 0) != 0);
  CHECK(mix_seed(1, 2, 3) == 0x6ae515c1c0ac7e37);  // by a Python program
}

std::string dumped(const std::string& text) { return Json::parse(text).dump(); }

void test_json_values() {
  const Json json =
      Json::parse(R"( {"a" : [1, -2.5e3, true, false, null, "x\n\"\\\/\u00e9\ud83d\ude00"] , "b":{}, "":[]} )");
  CHECK(json.dump() == "{\"a\":[1,-2500.0,true,false,null,\"x\\n\\\"\\\\/é😀\"],\"b\":{},\"\":[]}");
  CHECK(json.find("b") != nullptr && json.find("b")->is_object() && json.find("c") == nullptr);
  const Json::Array& a = json.find("a")->as_array();
  CHECK(a[0].is_integer() && a[0].as_integer() == 1 && a[0].as_number() == 1.0);
  CHECK(!a[1].is_integer() && a[1].is_number() && a[1].as_integer() == -2500);
  CHECK(a[2].as_bool() && !a[3].as_bool() && a[4].is_null());
  CHECK(dumped("\"\\u0000\\u001f\\t\"") == "\"\\u0000\\u001f\\u0009\"");
  CHECK(Json::parse("9223372036854775807").as_integer() == std::numeric_limits<std::int64_t>::max());
  CHECK(Json::parse("-9223372036854775808").as_integer() == std::numeric_limits<std::int64_t>::min());
  CHECK_SAYS(std::invalid_argument, "expected a string, found an integer 1", a[0].as_string());
  CHECK_SAYS(std::invalid_argument, "expected a boolean, found null", a[4].as_bool());
  CHECK_SAYS(std::invalid_argument, "expected an integer, found a number 0.5", Json(0.5).as_integer());
  CHECK_SAYS(std::invalid_argument, "expected an integer, found a number 1e+19", Json(1e19).as_integer());
  CHECK_SAYS(std::invalid_argument, "expected a number, found a boolean", a[2].as_number());
  CHECK_SAYS(std::invalid_argument, "expected an object, found an array", json.find("a")->as_object());
  CHECK_SAYS(std::invalid_argument, "expected an array, found a string 'q'", Json("q").as_array());
  CHECK_SAYS(std::invalid_argument, "not finite", Json(std::nan("")).dump());
  CHECK_SAYS(std::invalid_argument, "not UTF-8: 'a\\xff'", Json("a\xff").dump());
}

void test_json_round_trip() {
  const Philox stream{1, 1};
  for (std::uint64_t e = 0; e < 200000; ++e) {
    const Philox::Block b = stream.block(e);
    const std::uint64_t bits = std::uint64_t{b.word[0]} << 32 | b.word[1];
    double value;
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isfinite(value)) continue;
    const Json back = Json::parse(Json(value).dump());
    const double read = back.as_number();
    CHECK(!back.is_integer() && std::memcmp(&read, &value, sizeof value) == 0);
  }
  for (const double value : {0.0, -0.0, 0.1, 1e300, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 1e23}) {
    const double read = Json::parse(Json(value).dump()).as_number();
    CHECK(std::memcmp(&read, &value, sizeof value) == 0);
  }
  CHECK(Json(0.1).dump() == "0.1" && Json(1.0).dump() == "1.0" && Json(1e300).dump() == "1e+300");
}

void test_json_hostile() {
  const std::pair<std::string, const char*> cases[] = {
      {"", "byte 0: expected a value, found the end"},
      {" ", "byte 1: expected a value"},
      {"\xef\xbb\xbf{}", "byte 0: expected a value"},
      {"{", "expected a key, found the end"},
      {"{\"a\"}", "byte 4: expected ':', found '}'"},
      {"{\"a\":1,}", "byte 7: expected a key"},
      {"{a:1}", "byte 1: expected a key, found 'a'"},
      {"{\"a\":1 \"b\":2}", "byte 7: expected ',' or '}'"},
      {"[1,]", "byte 3: expected a value"},
      {"[1 2]", "byte 3: expected ',' or ']'"},
      {"[1}", "byte 2: expected ',' or ']'"},
      {"{\"a\":1,\"b\":2,\"a\":3}", "duplicate key 'a'"},
      {"{\"a\":1,\"\\u0061\":3}", "duplicate key 'a'"},
      {"1 1", "byte 2: expected the end"},
      {"[] x", "byte 3: expected the end"},
      {"tru", "byte 0: expected true"},
      {"nul ", "byte 0: expected null"},
      {"True", "byte 0: expected a value"},
      {"NaN", "byte 0: expected a value"},
      {"Infinity", "byte 0: expected a value"},
      {"-Infinity", "byte 1: expected a digit"},
      {"01", "byte 1: expected the end"},
      {"-", "byte 1: expected a digit"},
      {"+1", "expected a value"},
      {".5", "expected a value"},
      {"1.", "byte 2: expected a digit"},
      {"1.e1", "byte 2: expected a digit"},
      {"1e", "byte 2: expected a digit"},
      {"1e+", "byte 3: expected a digit"},
      {"0x10", "byte 1: expected the end"},
      {"1,5", "byte 1: expected the end"},
      {"1e400", "byte 0: expected a number in the range of double"},
      {"-1e99999999999", "in the range of double"},
      {"9223372036854775808", "byte 0: expected an integer of 64 bits"},
      {"\"", "byte 1: expected '\"'"},
      {"\"\\", "expected an escape, found the end"},
      {"\"\\\"", "expected '\"', found the end"},
      {"\"\\x\"", "byte 2: expected an escape, found 'x'"},
      {"\"\\u12", "four hexadecimal digits"},
      {"\"\\u12g4\"", "four hexadecimal digits"},
      {"\"\\ud800\"", "surrogate"},
      {"\"\\ud800\\n\"", "surrogate"},
      {"\"\\ud800\\u0041\"", "surrogate"},
      {"\"\\udc00\"", "surrogate"},
      {"\"a\nb\"", "byte 2: expected no control character"},
      {std::string("\"a\0b\"", 5), "byte 2: expected no control character"},
      {std::string("1\0", 2), "byte 1: expected the end, found '\\x00'"},
      {"\"\xff\"", "byte 1: expected UTF-8, found '\\xff'"},
      {"\"\xc0\x80\"", "expected UTF-8"},          // overlong
      {"\"\xe0\x80\x80\"", "expected UTF-8"},      // overlong
      {"\"\xf0\x80\x80\x80\"", "expected UTF-8"},  // overlong
      {"\"\xed\xa0\x80\"", "expected UTF-8"},      // surrogate
      {"\"\xf4\x90\x80\x80\"", "expected UTF-8"},  // beyond U+10FFFF
      {"\"\xe2\x82\"", "expected UTF-8"},          // cut short
      {"/**/1", "expected a value"},
      {"'a'", "expected a value"},
      {std::string(65, '['), "byte 64: expected at most 64 levels"},
      {std::string(1000000, '['), "at most 64 levels"},
  };
  for (const auto& bad : cases) CHECK_SAYS(std::invalid_argument, bad.second, Json::parse(bad.first));
  CHECK(dumped(std::string(64, '[') + std::string(64, ']')).size() == 128);
  std::string objects;
  for (int i = 0; i < 1000000; ++i) objects += "{\"a\":";
  CHECK_SAYS(std::invalid_argument, "at most 64 levels", Json::parse(objects));
  std::string wide = "{";  // many keys: not quadratic
  for (int i = 0; i < 200000; ++i) wide += "\"" + std::to_string(i) + "\":0,";
  CHECK(Json::parse(wide + "\"x\":1}").as_object().size() == 200001);
  CHECK_SAYS(std::invalid_argument, "duplicate key '77'", Json::parse(wide + "\"77\":1}"));
  const std::string whole = R"({"a":[1,-2.5e3,true,null,"x\u00e9\ud83d\ude00"],"b":{"c":[]}})";
  for (std::size_t n = 0; n < whole.size(); ++n) {
    CHECK_SAYS(std::invalid_argument, "JSON", Json::parse(std::string_view(whole).substr(0, n)));
  }
}

// The deepest text that is accepted, on the smallest stack that services use.
void test_json_small_stack() {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  CHECK(pthread_attr_setstacksize(&attributes, 256 << 10) == 0);
  pthread_t thread;
  const auto body = [](void*) -> void* {
    CHECK(Json::parse(std::string(64, '[') + std::string(64, ']')).is_array());
    CHECK_SAYS(std::invalid_argument, "64 levels", Json::parse(std::string(1000000, '[')));
    return nullptr;
  };
  CHECK(pthread_create(&thread, &attributes, body, nullptr) == 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

// A decimal comma: in C's locale where the system has one, in C++'s always.
struct Comma : std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};
void test_json_locale() {
  const std::locale old = std::locale::global(std::locale(std::locale::classic(), new Comma));
  for (const char* name : {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8"}) std::setlocale(LC_ALL, name);
  CHECK(dumped("[1.5,1234567,1e-7]") == "[1.5,1234567,1e-07]");
  CHECK_SAYS(std::invalid_argument, "byte 1:", Json::parse("1,5"));
  std::locale::global(old);
  std::setlocale(LC_ALL, "C");
}

}  // namespace

int main() {
  test_arena();
  test_philox();
  test_json_values();
  test_json_round_trip();
  test_json_hostile();
  test_json_small_stack();
  test_json_locale();
  return check::report();
}

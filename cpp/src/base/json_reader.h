// The lexer under Json::parse, for who wants to read a large JSON text without a tree of it (safetensors headers).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace seqcore {

// Every function skips white space first, and throws std::invalid_argument with the byte offset where the text is not
// what it should be.
class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : text_(text) {}  // REQUIRES: the text outlives this

  char peek();        // the next character, 0 at the end
  bool take(char c);  // steps over c if it is next
  void expect(char c);
  void word(std::string_view name);  // true, false, null
  std::string string();
  using Number = std::variant<std::int64_t, double>;  // the latter where it has a point or an exponent
  Number number();
  void end();
  [[noreturn]] void fail(const std::string& expected) const;  // "expected …, found …"

  // member(key) is called at each value of an object and must consume it; likewise element() in an array.
  template <class F>
  void object(F&& member) {
    expect('{');
    if (take('}')) return;
    do {
      if (peek() != '"') fail("a key");
      std::string key = string();
      expect(':');
      member(std::move(key));
    } while (take(','));
    if (!take('}')) fail("',' or '}'");
  }
  template <class F>
  void array(F&& element) {
    expect('[');
    if (take(']')) return;
    do element();
    while (take(','));
    if (!take(']')) fail("',' or ']'");
  }

 private:
  unsigned hex4();
  std::string_view text_;
  std::size_t at_ = 0;
};

// Throws std::invalid_argument if two keys are equal.
void check_unique(std::vector<std::string_view> keys);

}  // namespace seqcore

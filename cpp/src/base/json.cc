#include "base/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <stdexcept>
#include <system_error>

#include "base/json_reader.h"

namespace seqcore {
namespace {

constexpr int kDepth = 64;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Bytes of the well-formed UTF-8 sequence at s[at] (Unicode 15, table 3-7), 0 if there is none.
std::size_t utf8_length(std::string_view s, std::size_t at) {
  const auto byte = [&](std::size_t i) { return at + i < s.size() ? static_cast<unsigned char>(s[at + i]) : 0u; };
  const auto tail = [&](std::size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned a = byte(0), b = byte(1);
  if (a < 0x80) return 1;
  if (a >= 0xC2 && a <= 0xDF) return tail(1) ? 2 : 0;
  if (a >= 0xE0 && a <= 0xEF) {
    const unsigned low = a == 0xE0 ? 0xA0 : 0x80, high = a == 0xED ? 0x9F : 0xBF;
    return b >= low && b <= high && tail(2) ? 3 : 0;
  }
  if (a >= 0xF0 && a <= 0xF4) {
    const unsigned low = a == 0xF0 ? 0x90 : 0x80, high = a == 0xF4 ? 0x8F : 0xBF;
    return b >= low && b <= high && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

void append_utf8(std::string& out, unsigned code) {
  const auto put = [&](unsigned byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xC0 | code >> 6);
  } else {
    if (code < 0x10000) {
      put(0xE0 | code >> 12);
    } else {
      put(0xF0 | code >> 18);
      put(0x80 | (code >> 12 & 0x3F));
    }
    put(0x80 | (code >> 6 & 0x3F));
  }
  put(0x80 | (code & 0x3F));
}

void append_hex(std::string& out, unsigned value, int digits) {
  while (digits-- > 0) out.push_back("0123456789abcdef"[value >> (4 * digits) & 15]);
}

void append_string(std::string& out, std::string_view s) {
  out.push_back('"');
  for (std::size_t at = 0; at < s.size();) {
    const std::size_t length = utf8_length(s, at);
    if (length == 0) throw std::invalid_argument("JSON: a string is not UTF-8: " + quoted(s));
    const char c = s[at];
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u";
      append_hex(out, static_cast<unsigned char>(c), 4);
    } else {
      out.append(s, at, length);
    }
    at += length;
  }
  out.push_back('"');
}

// Shortest text that reads back as the same double, and as a double.
void append_number(std::string& out, double value) {
  if (!std::isfinite(value)) throw std::invalid_argument("JSON: a number is not finite");
  char text[32];
  const char* end = std::to_chars(text, text + sizeof text, value).ptr;
  const std::string_view digits(text, static_cast<std::size_t>(end - text));
  out += digits;
  if (digits.find_first_of(".e") == std::string_view::npos) out += ".0";
}

template <class Items, class F>
void append_list(std::string& out, char open, char close, const Items& items, F&& append) {
  out.push_back(open);
  bool first = true;
  for (const auto& item : items) {
    if (!first) out.push_back(',');
    first = false;
    append(item);
  }
  out.push_back(close);
}

void append(std::string& out, const Json& json) {
  if (json.is_null()) {
    out += "null";
  } else if (json.is_bool()) {
    out += json.as_bool() ? "true" : "false";
  } else if (json.is_integer()) {
    out += std::to_string(json.as_integer());
  } else if (json.is_number()) {
    append_number(out, json.as_number());
  } else if (json.is_string()) {
    append_string(out, json.as_string());
  } else if (json.is_array()) {
    append_list(out, '[', ']', json.as_array(), [&](const Json& item) { append(out, item); });
  } else {
    append_list(out, '{', '}', json.as_object(), [&](const auto& member) {
      append_string(out, member.first);
      out.push_back(':');
      append(out, member.second);
    });
  }
}

Json parse_value(JsonReader& in, int depth) {
  const char c = in.peek();
  if ((c == '{' || c == '[') && depth == kDepth) in.fail("at most " + std::to_string(kDepth) + " levels");
  switch (c) {
    case '{': {
      Json::Object object;
      in.object([&](std::string&& key) { object.emplace_back(std::move(key), parse_value(in, depth + 1)); });
      std::vector<std::string_view> keys;
      for (const auto& member : object) keys.push_back(member.first);
      check_unique(std::move(keys));
      return Json(std::move(object));
    }
    case '[': {
      Json::Array array;
      in.array([&] { array.push_back(parse_value(in, depth + 1)); });
      return Json(std::move(array));
    }
    case '"':
      return in.string();
    case 't':
      in.word("true");
      return true;
    case 'f':
      in.word("false");
      return false;
    case 'n':
      in.word("null");
      return nullptr;
    default:
      if (c != '-' && !is_digit(c)) in.fail("a value");
      return in.number();
  }
}

const char* kind(const Json& json) {
  return json.is_null()      ? "null"
         : json.is_bool()    ? "a boolean"
         : json.is_integer() ? "an integer"
         : json.is_number()  ? "a number"
         : json.is_string()  ? "a string"
         : json.is_array()   ? "an array"
                             : "an object";
}

[[noreturn]] void wrong_kind(const char* expected, const Json& found) {
  std::string value;
  if (found.is_string()) value = " " + quoted(found.as_string());
  if (found.is_number()) value = " " + found.dump();
  throw std::invalid_argument(std::string("expected ") + expected + ", found " + kind(found) + value);
}

}  // namespace

// ------------------------------------------------------------------------------------------------------------- reader

void JsonReader::fail(const std::string& expected) const {
  const std::size_t length = at_ < text_.size() ? std::max<std::size_t>(utf8_length(text_, at_), 1) : 0;
  throw std::invalid_argument("JSON, byte " + std::to_string(at_) + ": expected " + expected + ", found " +
                              (length > 0 ? quoted(text_.substr(at_, length)) : "the end"));
}

char JsonReader::peek() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) {
    ++at_;
  }
  return at_ < text_.size() ? text_[at_] : '\0';
}

bool JsonReader::take(char c) {
  if (peek() != c || at_ == text_.size()) return false;
  ++at_;
  return true;
}

void JsonReader::expect(char c) {
  if (!take(c)) fail({'\'', c, '\''});
}

void JsonReader::word(std::string_view name) {
  peek();
  if (text_.substr(at_, name.size()) != name) fail(std::string(name));
  at_ += name.size();
}

void JsonReader::end() {
  peek();
  if (at_ < text_.size()) fail("the end");
}

unsigned JsonReader::hex4() {
  unsigned code = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    if (is_digit(c)) {
      code = code * 16 + static_cast<unsigned>(c - '0');
    } else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) {
      code = code * 16 + static_cast<unsigned>((c | 0x20) - 'a' + 10);
    } else {
      fail("four hexadecimal digits");
    }
  }
  return code;
}

std::string JsonReader::string() {
  expect('"');
  std::size_t close = at_;  // no string is longer than its text: reserved once
  while (close < text_.size() && text_[close] != '"') close += text_[close] == '\\' ? 2 : 1;
  std::string out;
  out.reserve(std::min(close, text_.size()) - at_);
  for (;;) {
    const std::size_t length = at_ < text_.size() ? utf8_length(text_, at_) : 0;
    if (length == 0) fail(at_ < text_.size() ? "UTF-8" : "'\"'");
    const char c = text_[at_];
    if (static_cast<unsigned char>(c) < 0x20) fail("no control character in a string");
    if (c != '"' && c != '\\') {
      out.append(text_, at_, length);
      at_ += length;
      continue;
    }
    ++at_;
    if (c == '"') return out;
    constexpr std::string_view names = "\"\\/bfnrt", values = "\"\\/\b\f\n\r\t";
    const std::size_t escape = at_ < text_.size() ? names.find(text_[at_]) : names.npos;
    if (escape != names.npos) {
      out.push_back(values[escape]);
      ++at_;
    } else if (at_ < text_.size() && text_[at_] == 'u') {
      ++at_;
      unsigned code = hex4();
      if (code >= 0xD800 && code <= 0xDFFF) {
        if (code >= 0xDC00 || text_.substr(at_, 2) != "\\u") fail("a pair of surrogates");
        at_ += 2;
        const unsigned low = hex4();
        if (low < 0xDC00 || low > 0xDFFF) fail("a low surrogate before this");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      }
      append_utf8(out, code);
    } else {
      fail("an escape");
    }
  }
}

Json JsonReader::number() {
  peek();
  const std::size_t begin = at_;
  const auto here = [&](char c) { return at_ < text_.size() && text_[at_] == c; };
  const auto digits = [&] {
    if (at_ == text_.size() || !is_digit(text_[at_])) fail("a digit");
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
  };
  if (here('-')) ++at_;
  if (here('0')) {
    ++at_;
  } else {
    digits();
  }
  bool integer = true;
  if (here('.')) {
    integer = false;
    ++at_;
    digits();
  }
  if (here('e') || here('E')) {
    integer = false;
    ++at_;
    if (here('+') || here('-')) ++at_;
    digits();
  }
  const auto convert = [&](auto value) -> Json {
    if (std::from_chars(text_.data() + begin, text_.data() + at_, value).ec != std::errc()) {
      at_ = begin;
      fail(integer ? "an integer of 64 bits" : "a number in the range of double");
    }
    return value;
  };
  return integer ? convert(std::int64_t{}) : convert(double{});
}

void check_unique(std::vector<std::string_view> keys) {
  std::sort(keys.begin(), keys.end());
  const auto twice = std::adjacent_find(keys.begin(), keys.end());
  if (twice != keys.end()) throw std::invalid_argument("JSON: duplicate key " + quoted(*twice));
}

std::string quoted(std::string_view bytes) {
  constexpr std::size_t most = 100;
  std::string out = "'";
  std::size_t at = 0;
  while (at < bytes.size() && out.size() < most) {
    const std::size_t length = utf8_length(bytes, at);
    const auto byte = static_cast<unsigned char>(bytes[at]);
    if (length == 0 || byte < 0x20 || byte == 0x7F) {
      out += "\\x";
      append_hex(out, byte, 2);
      ++at;
    } else {
      out.append(bytes, at, length);
      at += length;
    }
  }
  return out + (at < bytes.size() ? "…'" : "'");
}

// --------------------------------------------------------------------------------------------------------------- Json

Json Json::parse(std::string_view text) {
  JsonReader in(text);
  Json json = parse_value(in, 0);
  in.end();
  return json;
}

std::string Json::dump() const {
  std::string out;
  append(out, *this);
  return out;
}

bool Json::as_bool() const {
  if (!is_bool()) wrong_kind("a boolean", *this);
  return std::get<bool>(value_);
}

std::int64_t Json::as_integer() const {
  if (is_integer()) return std::get<std::int64_t>(value_);
  if (!is_number()) wrong_kind("an integer", *this);
  const double value = as_number();
  if (value != std::trunc(value) || value < -0x1p63 || value >= 0x1p63) wrong_kind("an integer", *this);
  return static_cast<std::int64_t>(value);
}

double Json::as_number() const {
  if (is_integer()) return static_cast<double>(std::get<std::int64_t>(value_));
  if (!is_number()) wrong_kind("a number", *this);
  return std::get<double>(value_);
}

const std::string& Json::as_string() const {
  if (!is_string()) wrong_kind("a string", *this);
  return std::get<std::string>(value_);
}

const Json::Array& Json::as_array() const {
  if (!is_array()) wrong_kind("an array", *this);
  return std::get<Array>(value_);
}

const Json::Object& Json::as_object() const {
  if (!is_object()) wrong_kind("an object", *this);
  return std::get<Object>(value_);
}

const Json* Json::find(std::string_view key) const {
  for (const auto& member : as_object()) {
    if (member.first == key) return &member.second;
  }
  return nullptr;
}

}  // namespace seqcore

#include "base/json.h"

#include <charconv>
#include <cmath>
#include <stdexcept>

#include "base/json_reader.h"
#include "base/utf8.h"

namespace seqcore {
namespace {

constexpr int kDepth = 64;

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
      if (c != '-' && (c < '0' || c > '9')) in.fail("a value");
      return std::visit([](auto value) { return Json(value); }, in.number());
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

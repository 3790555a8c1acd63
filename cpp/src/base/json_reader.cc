#include "base/json_reader.h"

#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <system_error>

#include "base/utf8.h"

namespace seqcore {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

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

}  // namespace

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

JsonReader::Number JsonReader::number() {
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
  const auto convert = [&](auto value) -> Number {
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

}  // namespace seqcore

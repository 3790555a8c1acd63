#include "base/utf8.h"

namespace seqcore {

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

void append_hex(std::string& out, unsigned value, int digits) {
  while (digits-- > 0) out.push_back("0123456789abcdef"[value >> (4 * digits) & 15]);
}

std::string quoted(std::string_view bytes, std::size_t most) {
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

}  // namespace seqcore

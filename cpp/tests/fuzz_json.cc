// JSON: any bytes are refused or read; what was read, printed and read again is the same. See fuzz.h.
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "base/json.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const std::string once = seqcore::Json::parse({reinterpret_cast<const char*>(data), size}).dump();
    if (seqcore::Json::parse(once).dump() != once) std::abort();
  } catch (const std::invalid_argument&) {
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  return {R"({"class_name":"LSTM","config":{"units":64,"dropout":0.1,"x":[null,true,false,-1e-5,12345678901234567]}})",
          "[[[[[]]]],{\"\\u00e9\\ud83d\\ude00\\n\":\"\xc3\xa9\xf0\x9f\x98\x80\"},-0.0,0,1E+22]", "\"\""};
}

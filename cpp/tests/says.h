// CHECK_SAYS(exception, part, expression): the expression throws this exception and its message contains part.
#pragma once

#include <exception>
#include <string>

#include "check.h"

namespace check {

template <class E, class F>
void says(const char* file, int line, const std::string& text, const std::string& part, F&& run) {
  std::string got = "nothing";
  try {
    run();
  } catch (const E& error) {
    got = error.what();
    if (got.find(part) != std::string::npos) got.clear();
  } catch (const std::exception& error) {
    got = std::string("another exception, ") + error.what();
  }
  that(got.empty(), file, line, text + " should throw \"" + part + "\", threw " + got);
}

}  // namespace check

#define CHECK_SAYS(exception, part, expression) \
  check::says<exception>(__FILE__, __LINE__, #expression, part, [&] { static_cast<void>(expression); })

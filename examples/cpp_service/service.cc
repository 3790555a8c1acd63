// A latency-sensitive service in miniature: rows of numbers come in on standard input, a stream of the model answers each
// on standard output, to the last bit (hexadecimal floats); at the end the percentiles of a step go to standard error.
//
//   service MODEL.safetensors [float32|bfloat16|int8] < rows.txt
#include <seqcore/seqcore.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

namespace {

seqcore::Precision parse_precision(const std::string& name) {
  if (name == "float32") return seqcore::Precision::float32;
  if (name == "bfloat16") return seqcore::Precision::bfloat16;
  if (name == "int8") return seqcore::Precision::int8;
  throw std::invalid_argument("expected float32, bfloat16 or int8, got " + name);
}

void print_percentiles(std::vector<double>& times) {
  if (times.empty()) return;
  std::sort(times.begin(), times.end());
  const auto at = [&](double q) {
    return times[std::min(times.size() - 1, static_cast<std::size_t>(q * static_cast<double>(times.size())))];
  };
  std::fprintf(stderr, "%zu steps, us: p50 %.2f  p99 %.2f  p99.9 %.2f  max %.2f\n", times.size(), at(0.5), at(0.99),
               at(0.999), times.back());
}

int serve(const std::string& path, seqcore::Precision precision) {
  using Clock = std::chrono::steady_clock;
  const seqcore::Model model = seqcore::Model::load(path);
  seqcore::Stream stream = model.stream(precision);
  std::vector<float> x(stream.features()), y(stream.outputs());
  std::vector<double> times;
  for (;;) {
    for (float& value : x)
      if (!(std::cin >> value)) {
        print_percentiles(times);
        return std::cin.eof() ? 0 : 1;
      }
    const auto start = Clock::now();
    const seqcore::Status status = stream.step(x, y);
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    if (!status) {
      std::fprintf(stderr, "step: %s\n", status.message());
      return 1;
    }
    for (std::size_t i = 0; i < y.size(); i++) std::printf("%s%a", i ? " " : "", static_cast<double>(y[i]));
    std::puts("");
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: %s MODEL.safetensors [float32|bfloat16|int8] < rows.txt\n", argv[0]);
    return 2;
  }
  try {
    return serve(argv[1], parse_precision(argc > 2 ? argv[2] : "float32"));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}

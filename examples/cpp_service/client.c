/* The same in C: rows on standard input, a stream's answers on standard output, as hexadecimal floats.
 *
 *   client MODEL.safetensors < rows.txt
 */
#include <seqcore/seqcore.h>
#include <stdio.h>
#include <stdlib.h>

static int failed(const char* what, seqcore_status status) {
  fprintf(stderr, "%s: %s: %s\n", what, seqcore_status_name(status), seqcore_last_error());
  return 1;
}

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s MODEL.safetensors < rows.txt\n", argv[0]);
    return 2;
  }
  seqcore_model model = NULL;
  seqcore_stream stream = NULL;
  seqcore_stream_info info;
  seqcore_status status = seqcore_model_load(argv[1], &model);
  if (status != SEQCORE_OK) return failed("load", status);
  status = seqcore_stream_create(model, SEQCORE_FLOAT32, 1, 1, &stream);
  if (status == SEQCORE_OK) status = seqcore_stream_get_info(stream, &info);
  seqcore_model_free(model); /* the stream keeps what it needs */
  if (status != SEQCORE_OK) return failed("stream", status);

  const size_t features = (size_t)info.features, outputs = (size_t)info.outputs;
  float* x = malloc((features + outputs) * sizeof(float));
  if (!x) return 1;
  float* y = x + features;
  size_t read = 0;
  while (scanf("%f", &x[read]) == 1) {
    if (++read < features) continue;
    read = 0;
    status = seqcore_stream_step(stream, x, features, y, outputs);
    if (status != SEQCORE_OK) break;
    for (size_t i = 0; i < outputs; i++) printf("%s%a", i ? " " : "", (double)y[i]);
    puts("");
  }
  free(x);
  seqcore_stream_free(stream);
  return status == SEQCORE_OK ? 0 : failed("step", status);
}

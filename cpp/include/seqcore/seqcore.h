/* seqcore from C, and from every language that can call C: models that Python trained and saved, run whole or one time
 * step at a time.
 *
 * Errors     A function that can fail returns a seqcore_status; seqcore_last_error() tells more. What failed has changed
 *            nothing. No C++ exception leaves the library.
 * Handles    Models and streams are handles: values, not addresses. One that was freed, was never made or is of the other
 *            kind is refused, SEQCORE_INVALID_HANDLE. A stream keeps what it needs of its model, which may be freed first.
 * Arrays     float32 or int32, C-contiguous, owned by the caller, of any alignment; what is read and what is written do not
 *            overlap. Every length is given in elements and must be exact. NULL only where it may be 0.
 * Threads    A model may be used by any number of threads at once. A stream is for one thread at a time: a second one gets
 *            SEQCORE_BUSY. Freeing a handle while another thread is in a call with it is an error of the caller's.
 * Results    float32: the same bits as Python's predict, on every processor, for any number of threads.
 */
#ifndef SEQCORE_SEQCORE_H
#define SEQCORE_SEQCORE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) || defined(SEQCORE_STATIC)
#define SEQCORE_API
#else
#define SEQCORE_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
#define SEQCORE_NOEXCEPT noexcept
extern "C" {
#else
#define SEQCORE_NOEXCEPT
#endif

typedef struct seqcore_model_handle* seqcore_model;   /* NULL is none */
typedef struct seqcore_stream_handle* seqcore_stream; /* one stream or many, advanced together */

enum { SEQCORE_MAX_RANK = 8 };

typedef enum seqcore_status {
  SEQCORE_OK = 0,
  SEQCORE_INVALID_ARGUMENT = 1, /* a null pointer, a wrong length, a value out of range, what a model cannot do */
  SEQCORE_INVALID_HANDLE = 2,   /* freed, never made, or of another kind */
  SEQCORE_INVALID_FILE = 3,     /* damaged, no seqcore model, or of a newer version */
  SEQCORE_SYSTEM_ERROR = 4,     /* the file cannot be read */
  SEQCORE_BUSY = 5,             /* the stream is in use by another thread */
  SEQCORE_OUT_OF_MEMORY = 6,
  SEQCORE_INTERNAL_ERROR = 7
} seqcore_status;

/* Of weights. Passed as an int, so that any number may come and is checked. */
typedef enum seqcore_precision { SEQCORE_FLOAT32 = 0, SEQCORE_BFLOAT16 = 1, SEQCORE_INT8 = 2 } seqcore_precision;

/* ---- the library */

SEQCORE_API const char* seqcore_version(void) SEQCORE_NOEXCEPT; /* "0.1.0" */
/* What the last failed call of this thread says, in English and UTF-8; "" before one. Valid until the next one fails. */
SEQCORE_API const char* seqcore_last_error(void) SEQCORE_NOEXCEPT;
SEQCORE_API const char* seqcore_status_name(int status) SEQCORE_NOEXCEPT; /* "SEQCORE_OK" */
/* Threads of the whole process for models and for many streams; by default as many as it may use. 1 to 2048. */
SEQCORE_API seqcore_status seqcore_set_num_threads(int threads) SEQCORE_NOEXCEPT;
SEQCORE_API int seqcore_num_threads(void) SEQCORE_NOEXCEPT;

/* ---- models */

/* From a file that Python's model.save("….safetensors") wrote, or from such a file's bytes. Data only: nothing in a file is
 * executed. *model is set on success alone. */
SEQCORE_API seqcore_status seqcore_model_load(const char* path, seqcore_model* model) SEQCORE_NOEXCEPT;
SEQCORE_API seqcore_status seqcore_model_parse(const void* data, size_t size, seqcore_model* model) SEQCORE_NOEXCEPT;
SEQCORE_API seqcore_status seqcore_model_free(seqcore_model model) SEQCORE_NOEXCEPT; /* NULL: nothing to do */

typedef struct seqcore_model_info {
  int takes_ids;      /* input is int32 token ids in [0, vocabulary), else float32 */
  int64_t vocabulary; /* 0 without ids */
  int64_t parameters; /* numbers in all weights */
  int input_rank;     /* of one sample: without the batch */
  int output_rank;
  int64_t input_shape[SEQCORE_MAX_RANK];  /* of one sample; -1: any */
  int64_t output_shape[SEQCORE_MAX_RANK]; /* -1: seqcore_model_output_steps tells */
} seqcore_model_info;
SEQCORE_API seqcore_status seqcore_model_get_info(seqcore_model model, seqcore_model_info* info) SEQCORE_NOEXCEPT;

/* The first entry of the output's shape for an input of `steps`: as many, unless layers (Conv1D, MaxPooling1D, …) make them
 * fewer, or the entry is known anyway. Fails where the input would be too short for a layer. */
SEQCORE_API seqcore_status seqcore_model_output_steps(seqcore_model model, int64_t steps,
                                                      int64_t* output_steps) SEQCORE_NOEXCEPT;

/* The outputs for `batch` samples: x is [batch][…input_shape], y is [batch][…output_shape], -1 being `steps` in x's and
 * seqcore_model_output_steps in y's (`steps` is ignored where no entry is -1). */
SEQCORE_API seqcore_status seqcore_model_predict(seqcore_model model, int precision, int64_t batch, int64_t steps,
                                                 const float* x, size_t x_count, float* y,
                                                 size_t y_count) SEQCORE_NOEXCEPT;
SEQCORE_API seqcore_status seqcore_model_predict_ids(seqcore_model model, int precision, int64_t batch, int64_t steps,
                                                     const int32_t* ids, size_t ids_count, float* y,
                                                     size_t y_count) SEQCORE_NOEXCEPT;

/* ---- streams: models run one time step at a time */

/* `streams` independent states, all zero. threads > 1: a single stream gets helper threads of its own, many use those of
 * the process. SEQCORE_INVALID_ARGUMENT where the model cannot run step by step, with the reason. */
SEQCORE_API seqcore_status seqcore_stream_create(seqcore_model model, int precision, int64_t streams, int threads,
                                                 seqcore_stream* stream) SEQCORE_NOEXCEPT;
/* Another one, with the same states. */
SEQCORE_API seqcore_status seqcore_stream_copy(seqcore_stream stream, seqcore_stream* copy) SEQCORE_NOEXCEPT;
SEQCORE_API seqcore_status seqcore_stream_free(seqcore_stream stream) SEQCORE_NOEXCEPT; /* NULL: nothing to do */

typedef struct seqcore_stream_info {
  int64_t streams;
  int takes_ids;
  int64_t features;    /* floats of a row of input; 1 where it is an id */
  int64_t outputs;     /* floats of a row of output */
  int64_t state_count; /* floats of the states of all streams */
} seqcore_stream_info;
SEQCORE_API seqcore_status seqcore_stream_get_info(seqcore_stream stream, seqcore_stream_info* info) SEQCORE_NOEXCEPT;

/* One step of a single stream: a row of input to a row of output. With one thread it allocates nothing, takes no lock and
 * makes no system call. */
SEQCORE_API seqcore_status seqcore_stream_step(seqcore_stream stream, const float* x, size_t x_count, float* y,
                                               size_t y_count) SEQCORE_NOEXCEPT;
SEQCORE_API seqcore_status seqcore_stream_step_id(seqcore_stream stream, int32_t id, float* y,
                                                  size_t y_count) SEQCORE_NOEXCEPT;

/* `steps` steps of the `which_count` streams that `which` lists, each at most once; which NULL and 0: of all. x is
 * [steps][streams][features] and y [steps][streams][outputs], streams being those that take part. */
SEQCORE_API seqcore_status seqcore_stream_run(seqcore_stream stream, int64_t steps, const int64_t* which,
                                              size_t which_count, const float* x, size_t x_count, float* y,
                                              size_t y_count) SEQCORE_NOEXCEPT;
SEQCORE_API seqcore_status seqcore_stream_run_ids(seqcore_stream stream, int64_t steps, const int64_t* which,
                                                  size_t which_count, const int32_t* ids, size_t ids_count, float* y,
                                                  size_t y_count) SEQCORE_NOEXCEPT;

/* States to zero: of the streams listed, or of all. */
SEQCORE_API seqcore_status seqcore_stream_reset(seqcore_stream stream, const int64_t* which,
                                                size_t which_count) SEQCORE_NOEXCEPT;
/* The states: of each recurrent layer h [streams][units], then c where there is one; of a Conv1D [streams][steps that its
 * windows still see, oldest first][features]. */
SEQCORE_API seqcore_status seqcore_stream_get_state(seqcore_stream stream, float* state, size_t count) SEQCORE_NOEXCEPT;
SEQCORE_API seqcore_status seqcore_stream_set_state(seqcore_stream stream, const float* state,
                                                    size_t count) SEQCORE_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif

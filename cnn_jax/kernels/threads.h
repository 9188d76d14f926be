// Loops on XLA's threads, shared by the compiled functions.

#ifndef CNN_JAX_KERNELS_THREADS_H_
#define CNN_JAX_KERNELS_THREADS_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>

#include "xla/ffi/api/ffi.h"

// From libgomp, which oneDNN brings; its header requires a compiler option.
extern "C" int omp_get_max_threads();
extern "C" void omp_set_num_threads(int);

namespace cnn_jax {

// Values below which a part of an elementwise loop does not justify waking a thread.
constexpr int64_t kSmallestSum = 1 << 16;

// Limits the calling thread to one OpenMP thread, which oneDNN queries when it plans
// and when it computes. The destructor restores the limit for other libraries.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

// Runs tasks 0 ... count - 1 on this thread and on idle threads of the pool. This
// thread takes tasks as well and then waits only for tasks already begun elsewhere, so
// calls from within the pool cannot deadlock.
inline void ForEach(xla::ffi::ThreadPool& pool, int64_t threads, int64_t count,
                    const std::function<void(int64_t)>& task) {
  struct State {
    std::atomic<int64_t> next{0};
    std::mutex lock;
    std::condition_variable changed;
    int64_t done = 0;
    std::exception_ptr error;
  };
  auto state = std::make_shared<State>();
  // A copy of this may start after all tasks are done. It may touch `task`, which lives
  // only as long as this call, only after it has obtained a valid number.
  auto take = [state, count, &task] {
    for (int64_t i; (i = state->next.fetch_add(1)) < count;) {
      std::exception_ptr error;
      try {
        const OneThread one;
        task(i);
      } catch (...) {
        error = std::current_exception();
      }
      const std::lock_guard<std::mutex> guard(state->lock);
      if (error) state->error = error;
      if (++state->done == count) state->changed.notify_one();
    }
  };
  try {
    for (int64_t i = 1; i < std::min(count, threads); ++i)
      pool.Schedule(std::function<void()>(take));
  } catch (const std::bad_alloc&) {
    // This thread does the rest.
  }
  take();
  std::unique_lock<std::mutex> guard(state->lock);
  state->changed.wait(guard, [&] { return state->done == count; });
  if (state->error) std::rethrow_exception(state->error);
}

}  // namespace cnn_jax

#endif  // CNN_JAX_KERNELS_THREADS_H_

// Max-pooling and its derivative, as targets of XLA's FFI.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using cnn_jax::ForEach;
using cnn_jax::kSmallestSum;
using Integers = ffi::Span<const int64_t>;

// Channels that max-pooling compares at once, without branches, which would be
// mispredicted. Every x86-64 processor has vectors of 16 bytes.
constexpr int64_t kLanes = 4;
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));
using Indices = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));

// The windows of a max-pooling, and the images that they slide over.
struct Windows {
  int64_t side, stride, top, left;
  int64_t rows, columns, height, width, channels;

  Windows(const Integers& numbers, const Integers& maps, const Integers& images)
      : side(numbers[0]),
        stride(numbers[1]),
        top(numbers[2]),
        left(numbers[3]),
        rows(maps[1]),
        columns(maps[2]),
        height(images[1]),
        width(images[2]),
        channels(images[3]) {}
  int64_t Image() const { return height * width * channels; }
  int64_t Map() const { return rows * columns * channels; }
};

// A pixel of a window: its index, row by row, and its distance from the first pixel in
// an array of images.
struct Tap {
  int64_t place, offset;
};

// Calls at(window, first, taps) for each window of an image: the place of the window in
// the maps and of its first pixel in the image, and the pixels that are not padding.
template <typename At>
void ForWindows(const Windows& w, const At& at) {
  std::vector<Tap> all, some;
  for (int64_t place = 0; place < w.side * w.side; ++place)
    all.push_back({place, (place / w.side * w.width + place % w.side) * w.channels});
  for (int64_t row = 0; row < w.rows; ++row)
    for (int64_t column = 0; column < w.columns; ++column) {
      const int64_t y = row * w.stride - w.top, x = column * w.stride - w.left;
      const int64_t window = (row * w.columns + column) * w.channels;
      const int64_t first = (y * w.width + x) * w.channels;
      if (y >= 0 && x >= 0 && y + w.side <= w.height && x + w.side <= w.width) {
        at(window, first, all);
        continue;
      }
      some.clear();
      for (const Tap& tap : all) {
        const int64_t down = y + tap.place / w.side, across = x + tap.place % w.side;
        if (down >= 0 && across >= 0 && down < w.height && across < w.width)
          some.push_back(tap);
      }
      at(window, first, some);
    }
}

// Calls task(n) for each image, on as many threads as the size of the maps justifies.
ffi::Error ForImages(ffi::ThreadPool& pool, const Windows& w, int64_t images,
                     const std::function<void(int64_t)>& task) {
  const int64_t threads = std::clamp<int64_t>(images * w.Map() / kSmallestSum, 1,
                                              std::max<int64_t>(1, pool.num_threads()));
  try {
    ForEach(pool, threads, images, task);
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kInternal,
                      "max-pooling: " + std::string(error.what()));
  }
  return ffi::Error::Success();
}

// Max-pooling: the largest pixel of each window and its index in the window. Of equal
// pixels the first counts; NaN is larger than any number, and padding is -inf.
ffi::Error Largest(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> images,
                   ffi::ResultBuffer<ffi::F32> maps, ffi::ResultBuffer<ffi::U8> places,
                   Integers windows) {
  const Windows w(windows, maps->dimensions(), images.dimensions());
  return ForImages(pool, w, images.dimensions()[0], [&](int64_t n) {
    const float* in = images.typed_data() + n * w.Image();
    const float* end = images.typed_data() + images.element_count();
    float* best = maps->typed_data() + n * w.Map();
    uint8_t* place = places->typed_data() + n * w.Map();
    ForWindows(w, [&](int64_t window, int64_t first, const std::vector<Tap>& taps) {
      for (int64_t c = 0; c < w.channels; c += kLanes) {
        Lanes value{}, largest = Lanes{} - std::numeric_limits<float>::infinity();
        Indices index{};
        for (const Tap& tap : taps) {
          // `first` may lie before the image, the pixel of a tap does not.
          const float* from = in + (first + tap.offset + c);
          if (end - from >= kLanes)
            std::memcpy(&value, from, sizeof(value));
          else
            std::memcpy(&value, from, (end - from) * sizeof(float));
          const Indices wins = ~(value <= largest) & (largest == largest);
          largest = wins ? value : largest;
          index = wins ? Indices{} + int32_t(tap.place) : index;
        }
        for (int64_t i = 0; i < std::min(kLanes, w.channels - c); ++i) {
          best[window + c + i] = largest[i];
          place[window + c + i] = uint8_t(index[i]);
        }
      }
    });
  });
}

// The derivative of max-pooling: adds the gradient of each window to the pixel that was
// its largest. XLA takes ten times as long, because it computes all pixels of a window.
ffi::Error Route(ffi::ThreadPool pool, ffi::Buffer<ffi::U8> places,
                 ffi::Buffer<ffi::F32> gradient, ffi::ResultBuffer<ffi::F32> images,
                 Integers windows) {
  const Windows w(windows, gradient.dimensions(), images->dimensions());
  return ForImages(pool, w, gradient.dimensions()[0], [&](int64_t n) {
    float* out = images->typed_data() + n * w.Image();
    std::fill_n(out, w.Image(), 0.f);
    const float* value = gradient.typed_data() + n * w.Map();
    const uint8_t* place = places.typed_data() + n * w.Map();
    ForWindows(w, [&](int64_t window, int64_t first, const std::vector<Tap>& taps) {
      const bool whole = int64_t(taps.size()) == w.side * w.side;
      for (int64_t c = 0; c < w.channels; ++c) {
        const int64_t chosen = place[window + c];
        if (whole && chosen < int64_t(taps.size())) {
          out[first + taps[chosen].offset + c] += value[window + c];
          continue;
        }
        // If all pixels are -inf, the largest may be one of the padding.
        for (const Tap& tap : taps)
          if (tap.place == chosen) out[first + tap.offset + c] += value[window + c];
      }
    });
  });
}

}  // namespace

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_largest, Largest,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::U8>>()
                                  .Attr<Integers>("windows"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_route, Route,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::U8>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<Integers>("windows"));

#pragma GCC visibility pop

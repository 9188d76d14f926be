// Convolutions and their two derivatives by oneDNN, as targets of XLA's FFI.
//
// Arrays have jax's layout: images and maps (stack, n, h, w, c), kernels (stack, h, w,
// c / groups, features). The members of a stack are independent convolutions of one
// shape, as jax.vmap requires.
//
// oneDNN's own threads (OpenMP) are not used. A call is split into tasks, each one
// part of the batch of one stack member, which run on XLA's threads. The process thus
// has a single pool that concurrent calls share, without spinning threads beside it.
// The split depends only on the shape and the size of the pool, and the parts of a
// kernel gradient are summed in order: the same pool gives bitwise equal results.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using cnn_jax::ForEach;
using cnn_jax::kSmallestSum;
using cnn_jax::OneThread;
using dnnl::memory;
using Dims = std::vector<int64_t>;
using Integers = ffi::Span<const int64_t>;

// Multiply-accumulates below which a part of a batch does not justify waking a thread.
constexpr int64_t kSmallestPart = 1 << 20;
constexpr int64_t kAlignment = 64;  // bytes: a cache line
// Bytes of kernels that a thread keeps for its next call.
constexpr size_t kMostKept = 64 << 20;
// Channels of an image gradient are a multiple of this: `_LANES` in `onednn.py`.
constexpr int64_t kChannels = 8;

// Features from which a kernel gradient is computed as a product. A block of patches
// has about kPatches values, which fit the level-2 cache, but at least kFewestPixels
// rows: the product must be worth adding to the gradient.
constexpr int64_t kFewestFeatures = 32;
constexpr int64_t kPatches = 1 << 16, kFewestPixels = 512;

// The result: feature maps from images and kernel, images from maps and kernel, or
// kernel from images and maps.
enum class Pass : int64_t { kMaps, kImages, kKernel };

int64_t RoundUp(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

// Memory that a thread reuses across calls, so that its pages are mapped only once.
class Scratch {
 public:
  ~Scratch() { Free(); }
  char* Get(size_t bytes) {
    if (bytes > size_) {
      Free();
      place_ = std::aligned_alloc(kAlignment, RoundUp(bytes, kAlignment));
      if (place_ == nullptr) throw std::bad_alloc();
      size_ = bytes;
    }
    return static_cast<char*>(place_);
  }
  // Sums of many parts are large, and any of XLA's threads may have made them.
  void FreeIfLarge() {
    if (size_ > kMostKept) Free();
  }

 private:
  void Free() {
    std::free(place_);
    place_ = nullptr;
    size_ = 0;
  }

  void* place_ = nullptr;
  size_t size_ = 0;
};

// One convolution: a member of a stack, or a part of its batch.
struct Geometry {
  Pass pass;
  memory::data_type type;
  int64_t groups;
  Dims images, kernel, maps;        // NHWC, HWIO, NHWC
  Dims strides, padding, dilation;  // padding: top, bottom, left, right

  // All numbers in sequence, the key of a plan.
  Dims Key() const {
    Dims key{int64_t(pass), int64_t(type), groups};
    for (const Dims* part : {&images, &kernel, &maps, &strides, &padding, &dilation})
      key.insert(key.end(), part->begin(), part->end());
    return key;
  }

  std::string Text() const {
    auto list = [](const Dims& dims) {
      std::string text;
      for (int64_t size : dims)
        text += (text.empty() ? "" : ", ") + std::to_string(size);
      return "(" + text + ")";
    };
    const bool half = type == memory::data_type::bf16;
    return std::string("a convolution of ") + (half ? "bfloat16" : "float32") +
           " images " + list(images) + " and kernel " + list(kernel) + " to maps " +
           list(maps) + ", strides " + list(strides) + ", padding " + list(padding) +
           ", dilation " + list(dilation) + ", groups " + std::to_string(groups);
  }
};

// oneDNN's plan for a geometry: created once, then used by all threads.
struct Plan {
  dnnl::primitive convolution;
  dnnl::primitive reorder;  // of the kernel: jax's layout to oneDNN's, or back
  memory::desc images, maps, kernel, own_kernel, scratch;
  bool reorders;
  bool product = false;  // a kernel gradient as a product of matrices: see `Product`
  std::string implementation;

  template <typename Descriptor>
  void Take(const Descriptor& descriptor, const memory::desc& planned_kernel) {
    own_kernel = planned_kernel;
    scratch = descriptor.scratchpad_desc();
    implementation = descriptor.impl_info_str();
  }
};

const dnnl::engine& Engine() {
  static const dnnl::engine* const engine = [] {
    dnnl::set_primitive_cache_capacity(0);  // `FindPlan` keeps the plans
    return new dnnl::engine(dnnl::engine::kind::cpu, 0);
  }();
  return *engine;
}

memory::desc Activations(const Dims& nhwc, memory::data_type type) {
  return {{nhwc[0], nhwc[3], nhwc[1], nhwc[2]}, type, memory::format_tag::nhwc};
}

// In jax's layout, or in any.
memory::desc Kernel(const Geometry& g, memory::data_type type, bool any) {
  using tag = memory::format_tag;
  const Dims& k = g.kernel;
  if (g.groups == 1)
    return {{k[3], k[2], k[0], k[1]}, type, any ? tag::any : tag::hwio};
  const Dims sizes{g.groups, k[3] / g.groups, k[2], k[0], k[1]};
  return {sizes, type, any ? tag::any : tag::hwigo};
}

// Whether oneDNN's code for a kernel gradient writes past its scratchpad. Strided 1x1
// convolutions first gather the pixels in use, in whole vectors of channels, but ask
// for the memory of the channels that there are (seen on AVX2 below 8 channels).
bool Overruns(const Geometry& g, const std::string& implementation) {
  constexpr int64_t kWidestVector = 16;
  return implementation.rfind("jit_1x1", 0) == 0 &&
         std::max(g.strides[0], g.strides[1]) > 1 && g.kernel[2] % kWidestVector != 0;
}

// Whether a kernel gradient is computed as a product of matrices, because it must be,
// or because that takes less time. On processors with AVX2 alone oneDNN's code for this
// pass reaches 20 to 70 % of the speed of the other two passes. With few features,
// copying the patches costs more than the product saves.
bool IsProduct(const Geometry& g, const std::string& implementation) {
  const bool overruns = Overruns(g, implementation);
  if (g.groups != 1 || g.type != memory::data_type::f32) {
    if (overruns) throw dnnl::error(dnnl_unimplemented, "faulty implementation");
    return false;
  }
  return overruns || implementation.rfind("x64:gemm", 0) == 0 ||
         (implementation == "jit:avx2" && g.kernel[3] >= kFewestFeatures);
}

// A kernel gradient, float32 and of one group: patches^T maps. A row of `patches` holds
// the pixels of the images under the kernel at one pixel of the maps, so the product
// has jax's layout of a kernel.
void Product(const Geometry& g, const float* images, const float* maps, float* kernel,
             Scratch& scratch) {
  const int64_t height = g.images[1], width = g.images[2], channels = g.images[3];
  const int64_t down = g.kernel[0], across = g.kernel[1], features = g.kernel[3];
  const int64_t rows = g.maps[1], columns = g.maps[2];
  const int64_t line = across * channels, patch = down * line;
  const int64_t pixels = g.maps[0] * rows * columns;
  const int64_t block = std::min(pixels, std::max(kFewestPixels, kPatches / patch));
  auto* patches = reinterpret_cast<float*>(scratch.Get(block * patch * sizeof(float)));
  for (int64_t start = 0; start < pixels; start += block) {
    const int64_t count = std::min(block, pixels - start);
    float* to = patches;
    for (int64_t pixel = start; pixel < start + count; ++pixel) {
      const int64_t top = pixel / columns % rows * g.strides[0] - g.padding[0];
      const int64_t left = pixel % columns * g.strides[1] - g.padding[2];
      const float* image = images + pixel / columns / rows * height * width * channels;
      const bool inside = g.dilation[1] == 1 && left >= 0 && left + across <= width;
      for (int64_t i = 0; i < down; ++i, to += line) {
        const int64_t y = top + i * g.dilation[0];
        if (y < 0 || y >= height) {
          std::fill_n(to, line, 0.f);
        } else if (inside) {
          std::copy_n(image + (y * width + left) * channels, line, to);
        } else {
          for (int64_t j = 0; j < across; ++j) {
            const int64_t x = left + j * g.dilation[1];
            if (x < 0 || x >= width)
              std::fill_n(to + j * channels, channels, 0.f);
            else
              std::copy_n(image + (y * width + x) * channels, channels,
                          to + j * channels);
          }
        }
      }
    }
    const auto status = dnnl::sgemm('T', 'N', patch, features, count, 1.f, patches,
                                    patch, maps + start * features, features,
                                    start ? 1.f : 0.f, kernel, features);
    if (status != dnnl::status::success) throw std::runtime_error("sgemm failed");
  }
}

// Throws if oneDNN failed to generate code on this thread, as it does if the code needs
// offsets beyond 32 bits. oneDNN records the error for the rest of the thread's life,
// and all that it generates there fails. Some of its convolutions do not report it:
// they would call code that does not exist.
void CheckGenerator() {
  const memory::desc values({1, 1, 1, 8}, memory::data_type::f32,
                            memory::format_tag::nhwc);
  const dnnl::eltwise_forward any(dnnl::eltwise_forward::primitive_desc(
      Engine(), dnnl::prop_kind::forward_inference, dnnl::algorithm::eltwise_relu,
      values, values));
}

std::shared_ptr<const Plan> MakePlan(const Geometry& g) {
  const OneThread one;
  auto plan = std::make_shared<Plan>();
  plan->images = Activations(g.images, g.type);
  plan->maps = Activations(g.maps, g.type);
  plan->kernel = Kernel(g, g.type, false);
  const memory::desc any = Kernel(g, g.type, true);
  const Dims gaps{g.dilation[0] - 1, g.dilation[1] - 1};  // jax counts distances
  const Dims before{g.padding[0], g.padding[2]}, after{g.padding[1], g.padding[3]};
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto direct = dnnl::algorithm::convolution_direct;
  const dnnl::convolution_forward::primitive_desc forward(
      Engine(),
      g.pass == Pass::kMaps ? dnnl::prop_kind::forward_inference
                            : dnnl::prop_kind::forward_training,
      direct, plan->images, any, plan->maps, g.strides, gaps, before, after,
      attributes);
  if (g.pass == Pass::kMaps) {
    plan->Take(forward, forward.weights_desc());
    plan->convolution = dnnl::convolution_forward(forward);
  } else if (g.pass == Pass::kImages) {
    const dnnl::convolution_backward_data::primitive_desc backward(
        Engine(), direct, plan->images, any, plan->maps, g.strides, gaps, before, after,
        forward, attributes);
    plan->Take(backward, backward.weights_desc());
    plan->convolution = dnnl::convolution_backward_data(backward);
  } else {
    // Parts of a sum are float32, also for bfloat16 operands.
    const memory::desc sum = Kernel(g, memory::data_type::f32, true);
    const dnnl::convolution_backward_weights::primitive_desc backward(
        Engine(), direct, plan->images, sum, plan->maps, g.strides, gaps, before, after,
        forward, attributes);
    plan->Take(backward, backward.diff_weights_desc());
    plan->convolution = dnnl::convolution_backward_weights(backward);
    plan->product = IsProduct(g, plan->implementation);
    if (plan->product) plan->own_kernel = plan->kernel;
  }
  plan->reorders = plan->own_kernel != plan->kernel;
  if (plan->reorders) {
    const bool back = g.pass == Pass::kKernel;
    const dnnl::reorder::primitive_desc reorder(
        Engine(), back ? plan->own_kernel : plan->kernel, Engine(),
        back ? plan->kernel : plan->own_kernel, attributes);
    if (reorder.scratchpad_desc().get_size() > 0)  // none does so far
      throw dnnl::error(dnnl_unimplemented, "a reorder needs a scratchpad");
    plan->reorder = dnnl::reorder(reorder);
  }
  CheckGenerator();
  return plan;
}

// Makes a plan on a new thread, whose generator has no error of an earlier plan. No
// other thread makes plans, so all of them can execute: `dnnl::sgemm` generates its
// code when it is first called.
std::shared_ptr<const Plan> MakePlanApart(const Geometry& g) {
  std::packaged_task<std::shared_ptr<const Plan>()> task([&g] { return MakePlan(g); });
  auto plan = task.get_future();
  std::thread(std::move(task)).join();
  return plan.get();
}

struct Hash {
  size_t operator()(const Dims& key) const {
    size_t hash = 0;
    for (int64_t value : key) hash = hash * 1000003 + size_t(value);
    return hash;
  }
};

std::shared_ptr<const Plan> FindPlan(const Geometry& geometry) {
  // Never destroyed: XLA's threads may outlive static objects.
  static auto& lock = *new std::mutex;
  static auto& plans = *new std::unordered_map<Dims, std::shared_ptr<const Plan>, Hash>;
  const Dims key = geometry.Key();
  const std::lock_guard<std::mutex> guard(lock);
  auto& plan = plans[key];
  if (plan == nullptr) plan = MakePlanApart(geometry);
  return plan;
}

void Execute(const dnnl::primitive& primitive,
             const std::unordered_map<int, memory>& arguments) {
  thread_local dnnl::stream stream(Engine());
  primitive.execute(stream, arguments);
  stream.wait();
}

// A whole call. The pass reads two of images, kernel and maps, and writes the third.
void Compute(const Geometry& whole, int64_t stack, char* images, char* kernel,
             char* maps, ffi::ThreadPool& pool) {
  const int64_t threads = std::max<int64_t>(1, pool.num_threads());
  const int64_t batch = whole.images[0];
  const Dims &x = whole.images, &k = whole.kernel, &y = whole.maps;
  const int64_t work = batch * y[1] * y[2] * y[3] * k[0] * k[1] * k[2];
  int64_t parts = std::min((threads + stack - 1) / stack, work / kSmallestPart);
  parts = std::clamp<int64_t>(parts, 1, batch);

  // If a batch does not divide evenly, the first parts have one more image.
  auto plan_for = [&](int64_t size) {
    Geometry part = whole;
    part.images[0] = part.maps[0] = size;
    return FindPlan(part);
  };
  auto large = plan_for((batch + parts - 1) / parts), small = plan_for(batch / parts);
  if (large->own_kernel != small->own_kernel) {
    parts = 1;
    large = small = plan_for(batch);
  }

  const bool to_kernel = whole.pass == Pass::kKernel;
  const size_t item = memory::data_type_size(whole.type);
  const size_t image = item * x[1] * x[2] * x[3], map = item * y[1] * y[2] * y[3];
  const size_t size = item * k[0] * k[1] * k[2] * k[3];
  // Kernels in the layout that oneDNN requires, or partial sums of kernel gradients,
  // which are float32 also for bfloat16.
  thread_local Scratch kept;
  const std::unique_ptr<Scratch, void (*)(Scratch*)> at_the_end(
      &kept, [](Scratch* scratch) { scratch->FreeIfLarge(); });
  char* own = kernel;
  size_t step = size;
  if (large->reorders || (to_kernel && parts > 1)) {
    step = RoundUp(large->own_kernel.get_size(), kAlignment);
    own = kept.Get(step * stack * (to_kernel ? parts : 1));
  }
  auto reorder = [&](char* from, const memory::desc& source, char* to,
                     const memory::desc& target) {
    Execute(large->reorder, {{DNNL_ARG_FROM, memory(source, Engine(), from)},
                             {DNNL_ARG_TO, memory(target, Engine(), to)}});
  };
  if (large->reorders && !to_kernel)
    ForEach(pool, threads, stack, [&](int64_t i) {
      reorder(kernel + i * size, large->kernel, own + i * step, large->own_kernel);
    });

  ForEach(pool, threads, stack * parts, [&](int64_t task) {
    thread_local Scratch scratch;
    const int64_t member = task / parts, part = task % parts;
    const int64_t start = part * (batch / parts) + std::min(part, batch % parts);
    const Plan& plan = part < batch % parts ? *large : *small;
    const int64_t first = member * batch + start;
    char* weights = own + (to_kernel ? task : member) * step;
    if (plan.product) {
      Geometry own_part = whole;
      own_part.images[0] = own_part.maps[0] = batch / parts + (part < batch % parts);
      Product(own_part, reinterpret_cast<float*>(images + first * image),
              reinterpret_cast<float*>(maps + first * map),
              reinterpret_cast<float*>(weights), scratch);
      return;
    }
    char* room = scratch.Get(plan.scratch.get_size());
    Execute(plan.convolution,
            {{whole.pass == Pass::kImages ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC,
              memory(plan.images, Engine(), images + first * image)},
             {to_kernel ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS,
              memory(plan.own_kernel, Engine(), weights)},
             {whole.pass == Pass::kMaps ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST,
              memory(plan.maps, Engine(), maps + first * map)},
             {DNNL_ARG_SCRATCHPAD, memory(plan.scratch, Engine(), room)}});
  });
  if (!to_kernel || own == kernel) return;

  // Sum the parts, one range of values per task, then convert to jax's layout.
  const int64_t values = large->own_kernel.get_size() / sizeof(float);
  const int64_t runs = std::min(threads, values / kSmallestSum + 1);
  ForEach(pool, threads, stack * runs, [&](int64_t task) {
    const int64_t member = task / runs, run = task % runs;
    char* first = own + member * parts * step;
    auto* total =
        reinterpret_cast<float*>(large->reorders ? first : kernel + member * size);
    for (int64_t part = large->reorders ? 1 : 0; part < parts; ++part) {
      const auto* added = reinterpret_cast<const float*>(first + part * step);
      for (int64_t i = values * run / runs; i < values * (run + 1) / runs; ++i)
        total[i] = part ? total[i] + added[i] : added[i];
    }
  });
  if (large->reorders)
    ForEach(pool, threads, stack, [&](int64_t i) {
      reorder(own + i * parts * step, large->own_kernel, kernel + i * size,
              large->kernel);
    });
}

Dims Tail(const Integers& dimensions) {
  return Dims(dimensions.begin() + 1, dimensions.end());
}

// The FFI handler: its operands are two of images, kernel and maps, in that order. The
// shape of the result is an attribute, because its array is flat.
template <Pass pass>
ffi::Error Call(ffi::ThreadPool pool, ffi::AnyBuffer left, ffi::AnyBuffer right,
                ffi::Result<ffi::AnyBuffer> out, Integers shape, Integers strides,
                Integers padding, Integers dilation, int64_t groups) {
  ffi::AnyBuffer images = left, kernel = right, maps = *out;
  if (pass == Pass::kImages) images = *out, kernel = left, maps = right;
  if (pass == Pass::kKernel) kernel = *out, maps = right;
  auto sizes = [&](Pass made, const ffi::AnyBuffer& buffer) {
    return Tail(pass == made ? shape : buffer.dimensions());
  };
  const bool half = images.element_type() == ffi::DataType::BF16;
  const Geometry geometry{pass,
                          half ? memory::data_type::bf16 : memory::data_type::f32,
                          groups,
                          sizes(Pass::kImages, images),
                          sizes(Pass::kKernel, kernel),
                          sizes(Pass::kMaps, maps),
                          Dims(strides.begin(), strides.end()),
                          Dims(padding.begin(), padding.end()),
                          Dims(dilation.begin(), dilation.end())};
  auto start = [](const ffi::AnyBuffer& b) {
    return static_cast<char*>(b.untyped_data());
  };
  const size_t values = left.element_count() * right.element_count();
  if (values == 0) {
    std::memset(start(*out), 0, out->size_bytes());
    return ffi::Error::Success();
  }
  try {
    Compute(geometry, left.dimensions()[0], start(images), start(kernel), start(maps),
            pool);
  } catch (const std::exception& error) {
    return ffi::Error(
        ffi::ErrorCode::kInternal,
        "oneDNN: " + std::string(error.what()) + " in " + geometry.Text());
  }
  return ffi::Error::Success();
}

auto Binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<ffi::AnyBuffer>()
      .Arg<ffi::AnyBuffer>()
      .Ret<ffi::AnyBuffer>()
      .Attr<Integers>("shape")
      .Attr<Integers>("strides")
      .Attr<Integers>("padding")
      .Attr<Integers>("dilation")
      .Attr<int64_t>("groups");
}

}  // namespace

#pragma GCC visibility push(default)

// Identifies the C++ files that this was compiled from, see `sources.py`.
#ifndef CNN_JAX_SOURCES
#error "compile with the macro of cnn_jax/kernels/sources.py, as setup.py does"
#endif
extern "C" const uint64_t cnn_jax_sources = CNN_JAX_SOURCES;

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_maps, Call<Pass::kMaps>, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_images, Call<Pass::kImages>, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_kernel, Call<Pass::kKernel>, Binding());

// Whether oneDNN has optimised (not reference) code for all three passes of a
// convolution on this processor; -1 if there is no memory or no thread to find out.
// Numbers: images (4), kernel (4), maps (4), strides
// (2), padding (4), dilation (2), groups, and 1 for bfloat16.
extern "C" int cnn_jax_has(const int64_t* numbers) {
  const int64_t* next = numbers;
  auto take = [&](int count) { return next += count, Dims(next - count, next); };
  Geometry geometry;
  geometry.images = take(4), geometry.kernel = take(4), geometry.maps = take(4);
  geometry.strides = take(2), geometry.padding = take(4), geometry.dilation = take(2);
  geometry.groups = *next++;
  if (geometry.groups < 1) return 0;
  geometry.type = *next ? memory::data_type::bf16 : memory::data_type::f32;
  try {
    for (Pass pass : {Pass::kMaps, Pass::kImages, Pass::kKernel}) {
      Geometry asked = geometry;
      asked.pass = pass;
      if (pass == Pass::kImages && geometry.groups == 1 &&
          geometry.type == memory::data_type::f32)
        asked.images[3] = asked.kernel[2] = RoundUp(geometry.images[3], kChannels);
      if (FindPlan(asked)->implementation.rfind("ref", 0) == 0) return 0;
    }
  } catch (const dnnl::error& error) {
    return error.status == dnnl_out_of_memory ? -1 : 0;
  } catch (const std::exception&) {
    return -1;
  }
  return 1;
}

#pragma GCC visibility pop

// oneDNN's batch normalization behind two C functions: prepare a pass on the caller's arrays, then run it.
#include <cstring>
#include <memory>
#include <unordered_map>

#include <dnnl.hpp>
#include <omp.h>

using namespace dnnl;

namespace {

struct Pass {
    primitive work;
    stream queue;
    std::unordered_map<int, memory> arguments;
    int threads;
};

memory::format_tag tag_of(const char *layout) {
    if (!std::strcmp(layout, "NCHW")) return memory::format_tag::nchw;
    if (!std::strcmp(layout, "NHWC")) return memory::format_tag::nhwc;
    return std::strcmp(layout, "nChw8c") ? memory::format_tag::nChw16c : memory::format_tag::nChw8c;
}

Pass *prepare_pass(const char *op, const char *layout, const int64_t *dims, float eps, int threads, float *x, float *y,
                   float *dy, float *const *vectors) {
    omp_set_num_threads(threads); // before a primitive is made: its work is divided there
    engine cpu(engine::kind::cpu, 0);
    memory::desc tensor({dims[0], dims[1], dims[2], dims[3]}, memory::data_type::f32, tag_of(layout));
    memory::desc channels({dims[1]}, memory::data_type::f32, memory::format_tag::a);
    auto affine = normalization_flags::use_scale | normalization_flags::use_shift;
    bool relu = !std::strcmp(op, "relu"), inference = relu || !std::strcmp(op, "eval");
    bool backward = !std::strcmp(op, "backward");
    auto flags = inference ? affine | normalization_flags::use_global_stats : affine;
    if (relu) flags = flags | normalization_flags::fuse_norm_relu;
    auto kind = inference ? prop_kind::forward_inference : prop_kind::forward_training;
    batch_normalization_forward::primitive_desc forward(cpu, kind, tensor, tensor, eps, flags);

    auto pass = std::make_unique<Pass>();
    pass->queue = stream(cpu);
    pass->threads = threads;
    auto give = [&](int name, const memory::desc &desc, float *data) {
        pass->arguments.emplace(name, memory(desc, cpu, data));
    };
    give(DNNL_ARG_SRC, tensor, x);
    give(DNNL_ARG_SCALE, channels, vectors[0]);
    give(DNNL_ARG_MEAN, channels, vectors[2]);
    give(DNNL_ARG_VARIANCE, channels, vectors[3]);
    if (backward) { // takes no shift
        batch_normalization_backward::primitive_desc gradients(cpu, prop_kind::backward, tensor, tensor, tensor, eps,
                                                               affine, forward);
        pass->work = batch_normalization_backward(gradients);
        give(DNNL_ARG_DIFF_DST, tensor, dy);
        give(DNNL_ARG_DIFF_SRC, tensor, y);
        give(DNNL_ARG_DIFF_SCALE, channels, vectors[4]);
        give(DNNL_ARG_DIFF_SHIFT, channels, vectors[5]);
    } else {
        pass->work = batch_normalization_forward(forward);
        give(DNNL_ARG_DST, tensor, y);
        give(DNNL_ARG_SHIFT, channels, vectors[1]);
    }
    return pass.release();
}
} // namespace

extern "C" {

// Channels in a block of the layout that oneDNN has vector code for on this CPU.
int block() {
    auto isa = static_cast<unsigned>(get_effective_cpu_isa()), wide = static_cast<unsigned>(cpu_isa::avx512_core);
    return (isa & wide) == wide ? 16 : 8;
}

// vectors: scale, shift, mean, variance, and the gradients of scale and shift. Null where oneDNN refuses.
Pass *prepare(const char *op, const char *layout, const int64_t *dims, float eps, int threads, float *x, float *y,
              float *dy, float *const *vectors) {
    try {
        return prepare_pass(op, layout, dims, eps, threads, x, y, dy, vectors);
    } catch (const error &) {
        return nullptr;
    }
}

void run(Pass *pass) {
    omp_set_num_threads(pass->threads); // others may have set it since
    pass->work.execute(pass->queue, pass->arguments);
    pass->queue.wait();
}

void release(Pass *pass) { delete pass; }
}

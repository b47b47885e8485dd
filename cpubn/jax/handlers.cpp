/* Batch norm as calls of XLA: compiled on the user's machine, against the header in jaxlib, by library.py.

   Two calls, forward and backward, of arrays in XLA's own memory and of the table of cpubn.h. What an operation does not
   have is an operand, or a result, of no elements. Under vmap, axes stand before an array's own: of length 1 where all
   entries of the batch share it. Each entry is a call of its own, with the bits that it has alone. */
#include "xla/ffi/api/ffi.h"

#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "cpubn.h"
#include "team.hpp"

namespace ffi = xla::ffi;

namespace {

const cpubn_table *table = nullptr;
int64_t serial_bytes = 0;
std::atomic<int> threads{1};
Team &team = *new Team; /* whose thread outlives what is destroyed at the end of the process */

int type_of(ffi::DataType type) {
    switch (type) {
    case ffi::DataType::F32: return CPUBN_FLOAT32;
    case ffi::DataType::F64: return CPUBN_FLOAT64;
    case ffi::DataType::F16: return CPUBN_FLOAT16;
    case ffi::DataType::BF16: return CPUBN_BFLOAT16;
    default: return 0;
    }
}

/* An operand or result; `mapped` of its axes stand before its own. */
class Operand {
  public:
    Operand(const ffi::AnyBuffer &buffer, size_t mapped)
        : data(static_cast<char *>(buffer.untyped_data())), dims(buffer.dimensions()), mapped(mapped),
          bytes(ffi::ByteWidth(buffer.element_type())), type(type_of(buffer.element_type())) {
        for (size_t k = mapped; k < dims.size(); k++) bytes *= dims[k];
    }

    bool is_there() const { return bytes > 0; }

    /* How many entries its batch has. */
    int64_t entries() const {
        int64_t n = 1;
        for (size_t k = 0; k < mapped; k++) n *= dims[k];
        return n;
    }

    /* Its own part of entry `number` of a batch of another's mapped axes. */
    char *of(int64_t number, const Operand &other) const {
        if (!is_there()) return nullptr;
        int64_t offset = 0, step = bytes;
        for (size_t k = mapped; k-- > 0;) {
            if (dims[k] > 1) offset += number % other.dims[k] * step;
            number /= other.dims[k];
            step *= dims[k];
        }
        return data + offset;
    }

    char *data;
    ffi::AnyBuffer::Dimensions dims;
    size_t mapped;
    int64_t bytes; /* of one entry */
    int type;
};

/* One vector of channels after the other, as float64: where it stands, or copied. */
class Vectors {
  public:
    Vectors(int64_t channels, int count) : n(channels), room(channels * count), next(room.data()) {}

    /* Room for one, which `write` takes elsewhere. */
    double *made() {
        next += n;
        return next - n;
    }

    double *copied(const Operand &v, const char *from) {
        if (from == nullptr) return nullptr;
        double *to = made();
        for (int64_t c = 0; c < n; c++)
            to[c] = v.type == CPUBN_FLOAT64 ? reinterpret_cast<const double *>(from)[c]
                                            : reinterpret_cast<const float *>(from)[c];
        return to;
    }

    const double *read(const Operand &v, const char *from) {
        return v.type == CPUBN_FLOAT64 ? reinterpret_cast<const double *>(from) : copied(v, from);
    }

    void write(const double *from, const Operand &v, char *to) const {
        for (int64_t c = 0; c < n && to != nullptr; c++) {
            if (v.type == CPUBN_FLOAT64) reinterpret_cast<double *>(to)[c] = from[c];
            else reinterpret_cast<float *>(to)[c] = static_cast<float>(from[c]);
        }
    }

  private:
    int64_t n;
    std::vector<double> room;
    double *next;
};

/* What both calls take: the attributes, and the shape of every array. */
class Request {
  public:
    const bool training;

    Request(ffi::Dictionary attributes, ffi::RemainingArgs args, ffi::RemainingRets rets)
        : training(attributes.get<int64_t>("training").value() != 0), given(attributes), args(args), rets(rets),
          rank(whole("rank")), mapped(args.get<ffi::AnyBuffer>(0)->dimensions().size() - rank) {}

    Operand operand(size_t place) const { return Operand(*args.get<ffi::AnyBuffer>(place), mapped); }
    Operand result(size_t place) const { return Operand(**rets.get<ffi::AnyBuffer>(place), mapped); }

    /* The call of one entry, over arrays like this one. */
    cpubn_call over(const Operand &x) {
        ptrdiff_t stride = x.type == CPUBN_FLOAT64 ? 8 : x.type == CPUBN_FLOAT32 ? 4 : 2;
        axes.rank = static_cast<int>(rank);
        axes.channel = static_cast<int>(whole("channel"));
        for (int64_t k = rank; k-- > 0; stride *= axes.shape[k]) {
            axes.shape[k] = x.dims[x.mapped + k];
            for (auto &strides : axes.strides) strides[k] = stride;
        }
        cpubn_call call = cpubn_over(0, 0, 0);
        call.axes = &axes;
        call.threads = threads.load(std::memory_order_relaxed);
        call.activation = static_cast<int>(whole("activation"));
        call.low = real("low");
        call.high = real("high");
        call.eps = real("eps");
        call.momentum = real("momentum");
        call.inference = !training;
        return call;
    }

    int64_t channels() const { return axes.shape[axes.channel]; }

    /* Values per channel. */
    double samples() const {
        double n = 1;
        for (int k = 0; k < axes.rank; k++) n *= k == axes.channel ? 1 : axes.shape[k];
        return n;
    }

  private:
    int64_t whole(const char *name) const { return *given.get<int64_t>(name); }
    double real(const char *name) const { return *given.get<double>(name); }

    ffi::Dictionary given;
    ffi::RemainingArgs args;
    ffi::RemainingRets rets;
    int64_t rank; /* of an array, without the mapped axes */
    size_t mapped;
    cpubn_axes axes;
};

void set(cpubn_array &array, const Operand &a, char *data) {
    array.data = data;
    array.type = a.type;
}

int forward(Request &request) {
    const Operand x = request.operand(0), mean = request.operand(1), var = request.operand(2);
    const Operand weight = request.operand(3), bias = request.operand(4), residual = request.operand(5);
    const Operand y = request.result(0), new_mean = request.result(1), new_var = request.result(2);
    const Operand stats = request.result(3);
    const cpubn_call all = request.over(y);
    for (int64_t k = 0, n = y.entries(); k < n; k++) {
        Vectors vectors(request.channels(), 4);
        cpubn_call call = all;
        set(call.x, x, x.of(k, y));
        set(call.y, y, y.of(k, y));
        set(call.residual, residual, residual.of(k, y));
        call.weight = vectors.read(weight, weight.of(k, y));
        call.bias = vectors.read(bias, bias.of(k, y));
        if (request.training) {
            call.stats = reinterpret_cast<double *>(stats.of(k, y));
            call.running_mean = vectors.copied(mean, mean.of(k, y));
            call.running_var = vectors.copied(var, var.of(k, y));
        } else {
            call.mean = vectors.read(mean, mean.of(k, y));
            call.var = vectors.read(var, var.of(k, y));
        }
        const int status = team.run(request.training ? table->train_forward : table->normalize, call, y.bytes > serial_bytes);
        if (status != CPUBN_OK) return status;
        vectors.write(call.running_mean, new_mean, new_mean.of(k, y));
        vectors.write(call.running_var, new_var, new_var.of(k, y));
    }
    return CPUBN_OK;
}

int backward(Request &request) {
    const Operand dy = request.operand(0), x = request.operand(1), mean = request.operand(2);
    const Operand var = request.operand(3), weight = request.operand(4), bias = request.operand(5);
    const Operand residual = request.operand(6), stats = request.operand(7), output = request.operand(8);
    const Operand dx = request.result(0), dweight = request.result(1), dbias = request.result(2);
    const Operand g = request.result(3);
    const cpubn_call all = request.over(dx);
    for (int64_t k = 0, n = dx.entries(); k < n; k++) {
        const int64_t channels = request.channels();
        Vectors vectors(channels, 6);
        cpubn_call call = all;
        set(call.dy, dy, dy.of(k, dx));
        set(call.x, x, x.of(k, dx));
        set(call.residual, residual, residual.of(k, dx));
        set(call.output, output, output.of(k, dx));
        set(call.dx, dx, dx.of(k, dx));
        set(call.g, g, g.of(k, dx));
        call.weight = vectors.read(weight, weight.of(k, dx));
        call.bias = vectors.read(bias, bias.of(k, dx));
        if (request.training && stats.is_there()) {
            const double samples = request.samples(), *batch = reinterpret_cast<double *>(stats.of(k, dx));
            double *biased = vectors.made();
            for (int64_t c = 0; c < channels; c++) biased[c] = batch[2 * channels + c] / (samples > 1 ? samples : 1);
            call.mean = batch;
            call.mean_low = batch + channels;
            call.var = biased;
        } else {
            call.mean = vectors.read(mean, mean.of(k, dx));
            call.var = vectors.read(var, var.of(k, dx));
        }
        call.dweight = vectors.made();
        call.dbias = vectors.made();
        const int status = team.run(table->train_backward, call, x.bytes > serial_bytes);
        if (status != CPUBN_OK) return status;
        vectors.write(call.dweight, dweight, dweight.of(k, dx));
        vectors.write(call.dbias, dbias, dbias.of(k, dx));
    }
    return CPUBN_OK;
}

template <int (*pass)(Request &)>
ffi::Error answer(ffi::Dictionary attributes, ffi::RemainingArgs args, ffi::RemainingRets rets) {
    try {
        Request request(attributes, args, rets);
        const int status = pass(request);
        if (status == CPUBN_OK) return ffi::Error::Success();
        return ffi::Error::InvalidArgument(std::string("cpubn.jax.batch_norm: ") + table->message(status));
    } catch (const std::bad_alloc &) { return ffi::Error::Internal("cpubn.jax.batch_norm: there is no memory for it"); }
}

} // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(cpubn_forward, answer<forward>, ffi::Ffi::Bind().Attrs().RemainingArgs().RemainingRets());
XLA_FFI_DEFINE_HANDLER_SYMBOL(cpubn_backward, answer<backward>,
                              ffi::Ffi::Bind().Attrs().RemainingArgs().RemainingRets());

/* Before anything else, once: the table, and of how many bytes a call is still made by one thread. */
extern "C" void cpubn_start(const void *functions, int64_t bytes) {
    table = static_cast<const cpubn_table *>(functions);
    serial_bytes = bytes;
}

extern "C" void cpubn_set_threads(int n) { threads.store(n, std::memory_order_relaxed); }

// Measures dot products on an NVIDIA GPU by mma.sync, one row of a probe file at a time.
//
//   nvcc -arch=sm_80 -o probe probe.cu && ./probe probe.txt > measured.txt        (sm_89, sm_90, sm_100, sm_120 likewise)
//
// A line of probe.txt:     FORMAT K c a_1 .. a_K b_1 .. b_K       numbers are bit patterns of binary32, in hexadecimal
// A line of measured.txt:  INSTRUCTION, the line, d               for each instruction that takes the format
//
// The row is laid into row 0 of A and column 0 of B; d is element (0, 0) of the result. The FP8 instructions need sm_89 or
// newer. What the compiler makes of an instruction depends on -arch: on sm_90 FP8 mma.sync becomes fp16 mma.sync and an add.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

static void check(cudaError_t error) {
    if (error != cudaSuccess) {
        fprintf(stderr, "probe: %s\n", cudaGetErrorString(error));
        exit(1);
    }
}

// Operands as the instruction has them: a and b hold K elements of 1, 2 or 4 bytes. Lane t of a warp holds, of row g = t / 4 of A,
// the elements of the 32-bit words t % 4 and t % 4 + 4 of the row, and of column g of B the same words: all formats alike.
__device__ uint32_t word_of(const uint8_t *row, int lane, int half) {
    if (lane >= 4) return 0;  // rows and columns other than 0 are zeros
    uint32_t word;
    memcpy(&word, row + 4 * (lane + 4 * half), 4);
    return word;
}

#define F32(NAME, MMA)                                                                                                     \
    __global__ void NAME(const uint8_t *a, const uint8_t *b, const float *c, float *d) {                                   \
        int lane = threadIdx.x;                                                                                            \
        uint32_t a0 = word_of(a, lane, 0), a2 = word_of(a, lane, 1), b0 = word_of(b, lane, 0), b1 = word_of(b, lane, 1);   \
        float c0 = lane == 0 ? *c : 0.0f, d0, d1, d2, d3;                                                                  \
        asm volatile(MMA " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"                                      \
                     : "=f"(d0), "=f"(d1), "=f"(d2), "=f"(d3)                                                              \
                     : "r"(a0), "r"(0), "r"(a2), "r"(0), "r"(b0), "r"(b1), "f"(c0), "f"(0.0f), "f"(0.0f), "f"(0.0f));      \
        if (lane == 0) *d = d0;                                                                                            \
    }

#define F16(NAME, MMA)                                                                                                     \
    __global__ void NAME(const uint8_t *a, const uint8_t *b, const float *c, float *d) {                                   \
        int lane = threadIdx.x;                                                                                            \
        uint32_t a0 = word_of(a, lane, 0), a2 = word_of(a, lane, 1), b0 = word_of(b, lane, 0), b1 = word_of(b, lane, 1);   \
        uint32_t c0 = lane == 0 ? __half_as_ushort(__float2half_rn(*c)) : 0, d0, d1;                                       \
        asm volatile(MMA " {%0,%1}, {%2,%3,%4,%5}, {%6,%7}, {%8,%9};"                                                      \
                     : "=r"(d0), "=r"(d1)                                                                                  \
                     : "r"(a0), "r"(0), "r"(a2), "r"(0), "r"(b0), "r"(b1), "r"(c0), "r"(0));                               \
        (void)d1;                                                                                                          \
        if (lane == 0) *d = __half2float(__ushort_as_half((unsigned short)(d0 & 0xFFFF)));                                 \
    }

F32(f32_f16, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32")
F16(f16_f16, "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16")
F32(f32_bf16, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")
F32(f32_tf32, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32")
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
F32(f32_e4m3, "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32")
F32(f32_e5m2, "mma.sync.aligned.m16n8k32.row.col.f32.e5m2.e5m2.f32")
F16(f16_e4m3, "mma.sync.aligned.m16n8k32.row.col.f16.e4m3.e4m3.f16")
F16(f16_e5m2, "mma.sync.aligned.m16n8k32.row.col.f16.e5m2.e5m2.f16")
#else
#define NONE(NAME) __global__ void NAME(const uint8_t *, const uint8_t *, const float *, float *) {}
NONE(f32_e4m3) NONE(f32_e5m2) NONE(f16_e4m3) NONE(f16_e5m2)
#endif

typedef void (*Kernel)(const uint8_t *, const uint8_t *, const float *, float *);
struct Instruction { const char *name, *format; Kernel kernel; int k, bytes, least; };
static const Instruction INSTRUCTIONS[] = {
    {"mma.f32", "float16", f32_f16, 16, 2, 80},        {"mma.f16", "float16", f16_f16, 16, 2, 80},
    {"mma.f32", "bfloat16", f32_bf16, 16, 2, 80},      {"mma.f32", "tf32", f32_tf32, 8, 4, 80},
    {"mma.f32", "float8_e4m3fn", f32_e4m3, 32, 1, 89}, {"mma.f16", "float8_e4m3fn", f16_e4m3, 32, 1, 89},
    {"mma.f32", "float8_e5m2", f32_e5m2, 32, 1, 89},   {"mma.f16", "float8_e5m2", f16_e5m2, 32, 1, 89},
};

static void store(uint8_t *to, float x, const char *format) {
    if (!strcmp(format, "float16")) { __half h = __float2half_rn(x); memcpy(to, &h, 2); }
    else if (!strcmp(format, "bfloat16")) { __nv_bfloat16 h = __float2bfloat16_rn(x); memcpy(to, &h, 2); }
    else if (!strcmp(format, "tf32")) memcpy(to, &x, 4);
    else *to = __nv_cvt_float_to_fp8(x, __NV_SATFINITE, !strcmp(format, "float8_e4m3fn") ? __NV_E4M3 : __NV_E5M2);
}

int main(int argc, char **argv) {
    FILE *file = argc == 2 ? fopen(argv[1], "r") : nullptr;
    if (!file) { fprintf(stderr, "usage: %s probe.txt > measured.txt\n", argv[0]); return 2; }
    cudaDeviceProp device;
    check(cudaGetDeviceProperties(&device, 0));
    printf("# %s sm_%d%d mma.sync\n", device.name, device.major, device.minor);
    uint8_t *a, *b;
    float *c, *d;
    check(cudaMallocManaged(&a, 64)); check(cudaMallocManaged(&b, 64));
    check(cudaMallocManaged(&c, 4)); check(cudaMallocManaged(&d, 4));
    static char line[4096];
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#' || line[0] == '\n') continue;
        line[strcspn(line, "\n")] = 0;
        char format[32];
        int k, used;
        if (sscanf(line, "%31s %d%n", format, &k, &used) != 2 || k < 1 || k > 32) { fprintf(stderr, "bad line: %s\n", line); return 2; }
        float values[65];
        char *at = line + used;
        for (int i = 0; i < 2 * k + 1; i++) {
            uint32_t bits = (uint32_t)strtoul(at, &at, 16);
            memcpy(&values[i], &bits, 4);
        }
        for (const Instruction &one : INSTRUCTIONS) {
            if (strcmp(one.format, format) || k > one.k || 10 * device.major + device.minor < one.least) continue;
            memset(a, 0, 64); memset(b, 0, 64);
            for (int i = 0; i < k; i++) {
                store(a + one.bytes * i, values[1 + i], format);
                store(b + one.bytes * i, values[1 + k + i], format);
            }
            *c = values[0];
            one.kernel<<<1, 32>>>(a, b, c, d);
            check(cudaGetLastError());
            check(cudaDeviceSynchronize());
            uint32_t bits;
            memcpy(&bits, d, 4);
            printf("%s %s %08x\n", one.name, line, bits);
        }
    }
    return 0;
}

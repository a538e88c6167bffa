// The conversions of NVIDIA's headers on the host: patterns on standard input (float32, or float64 for doubles), codes on standard
// output. The argument names the conversion as models/cuda.toml does.
#include <cuda_fp4.h>
#include <cuda_fp6.h>
#include <cuda_fp8.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <string>

using Single = std::function<unsigned(float)>;
using Double = std::function<unsigned(double)>;

static unsigned of_bfloat16(float x) {
    __nv_bfloat16_raw raw;
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    raw.x = (unsigned short)(bits >> 16);
    return __nv_cvt_bfloat16raw_to_e8m0(raw, __NV_SATFINITE, cudaRoundNearest);
}

int main(int, char **arguments) {
    const std::map<std::string, Single> singles = {
        {"float_e4m3_sat", [](float x) { return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3); }},
        {"float_e4m3_nosat", [](float x) { return __nv_cvt_float_to_fp8(x, __NV_NOSAT, __NV_E4M3); }},
        {"float_e5m2_sat", [](float x) { return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E5M2); }},
        {"float_e5m2_nosat", [](float x) { return __nv_cvt_float_to_fp8(x, __NV_NOSAT, __NV_E5M2); }},
        {"float_e2m3", [](float x) { return __nv_cvt_float_to_fp6(x, __NV_E2M3, cudaRoundNearest); }},
        {"float_e3m2", [](float x) { return __nv_cvt_float_to_fp6(x, __NV_E3M2, cudaRoundNearest); }},
        {"float_e2m1", [](float x) { return __nv_cvt_float_to_fp4(x, __NV_E2M1, cudaRoundNearest); }},
        {"float_e2m1_rz", [](float x) { return __nv_cvt_float_to_fp4(x, __NV_E2M1, cudaRoundZero); }},
        {"float_e8m0_nearest_sat", of_bfloat16},
        {"float_e8m0_rz_sat", [](float x) { return __nv_cvt_float_to_e8m0(x, __NV_SATFINITE, cudaRoundZero); }},
        {"float_e8m0_rp_sat", [](float x) { return __nv_cvt_float_to_e8m0(x, __NV_SATFINITE, cudaRoundPosInf); }},
        {"float_ue5m3_sat", [](float x) { return __nv_cvt_float_to_ue5m3(x, __NV_SATFINITE, cudaRoundNearest); }},
        {"float_ue5m3_nosat", [](float x) { return __nv_cvt_float_to_ue5m3(x, __NV_NOSAT, cudaRoundNearest); }},
    };
    const std::map<std::string, Double> doubles = {
        {"double_e4m3_sat", [](double x) { return __nv_cvt_double_to_fp8(x, __NV_SATFINITE, __NV_E4M3); }},
        {"double_e4m3_nosat", [](double x) { return __nv_cvt_double_to_fp8(x, __NV_NOSAT, __NV_E4M3); }},
        {"double_e5m2_sat", [](double x) { return __nv_cvt_double_to_fp8(x, __NV_SATFINITE, __NV_E5M2); }},
        {"double_e5m2_nosat", [](double x) { return __nv_cvt_double_to_fp8(x, __NV_NOSAT, __NV_E5M2); }},
    };
    const std::string name = arguments[1];
    if (name.rfind("double", 0) == 0) {
        const Double convert = doubles.at(name);
        for (double x; std::fread(&x, sizeof x, 1, stdin) == 1;) std::putchar((int)convert(x));
    } else if (name == "int64_e5m2_sat") {
        for (int x; std::fread(&x, sizeof x, 1, stdin) == 1;) std::putchar(__nv_fp8_e5m2((long long)x).__x);
    } else {
        const Single convert = singles.at(name);
        for (float x; std::fread(&x, sizeof x, 1, stdin) == 1;) std::putchar((int)convert(x));
    }
    return 0;
}

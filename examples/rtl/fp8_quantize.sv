// float32 to FP8, combinational: E4M3 of OCP by default, E5M2 with MAN = 2, BIAS = 15, IEEE = 1.
`default_nettype none
module fp8_quantize #(
    parameter integer MAN = 3,
    parameter integer BIAS = 7,
    parameter integer IEEE = 0,
    parameter integer R = 8
) (
    input wire [31:0] x,
    input wire stochastic,
    input wire saturate,
    input wire [R-1:0] rbits,
    output wire [7:0] y
);
    wire sign, nan, infinite, sticky;
    wire [8:0] binade;
    wire [3:0] steps;
    wire [23:0] fraction;
    fp8_align #(.MAN(MAN), .BIAS(BIAS)) align (
        .x(x), .sign(sign), .nan(nan), .infinite(infinite), .binade(binade), .steps(steps), .fraction(fraction),
        .sticky(sticky)
    );
    fp8_round #(.MAN(MAN), .IEEE(IEEE), .R(R)) round (
        .sign(sign), .nan(nan), .infinite(infinite), .binade(binade), .steps(steps), .fraction(fraction), .sticky(sticky),
        .stochastic(stochastic), .saturate(saturate), .rbits(rbits), .y(y)
    );
endmodule
`default_nettype wire

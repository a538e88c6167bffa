// The second half: away from zero or not, then the range.
//
// To nearest: away above one half, and on it if the last bit is set. Stochastic: the top R bits of the fraction and the word are
// added, and the carry decides, which is StochasticA: away for floor(fraction 2^R) of the 2^R words.
`default_nettype none
module fp8_round #(
    parameter integer MAN = 3,
    parameter integer IEEE = 0,  // 1: the top binade holds infinity and NaN, 0: its last code alone is NaN
    parameter integer R = 8
) (
    input wire sign,
    input wire nan,
    input wire infinite,
    input wire [8:0] binade,
    input wire [3:0] steps,
    input wire [23:0] fraction,
    input wire sticky,
    input wire stochastic,
    input wire saturate,
    input wire [R-1:0] rbits,
    output reg [7:0] y
);
    localparam [6:0] NAN = 7'h7f;
    localparam [6:0] TOP = IEEE ? 7'h7f - (1 << MAN) : 7'h7e;
    localparam [6:0] OVERFLOW = IEEE ? TOP + 7'd1 : NAN;
    wire nearest = fraction[23] & ((|fraction[22:0]) | sticky | steps[0]);
    wire [R:0] sum = {1'b0, fraction[23-:R]} + {1'b0, rbits};
    wire away = stochastic ? sum[R] : nearest;
    wire [4:0] rounded = {1'b0, steps} + {4'd0, away};
    // The leading bit of a normal significand is one in the exponent field; a carry goes there by itself.
    wire [15:0] code = {7'd0, binade} * (1 << MAN) + {11'd0, rounded} - ((binade == 0) ? 16'd0 : 16'd1 << MAN);
    wire beyond = code > {9'd0, TOP};
    always @* begin
        if (nan) y = {sign, NAN};
        else if (infinite | beyond) y = {sign, saturate ? TOP : OVERFLOW};
        else y = {sign, code[6:0]};
    end
endmodule
`default_nettype wire

// The same in two stages: y is of the x of two clocks before.
`default_nettype none
module fp8_quantize_pipelined #(
    parameter integer MAN = 3,
    parameter integer BIAS = 7,
    parameter integer IEEE = 0,
    parameter integer R = 8
) (
    input wire clk,
    input wire [31:0] x,
    input wire stochastic,
    input wire saturate,
    input wire [R-1:0] rbits,
    output reg [7:0] y
);
    wire sign, nan, infinite, sticky;
    wire [8:0] binade;
    wire [3:0] steps;
    wire [23:0] fraction;
    fp8_align #(.MAN(MAN), .BIAS(BIAS)) align (
        .x(x), .sign(sign), .nan(nan), .infinite(infinite), .binade(binade), .steps(steps), .fraction(fraction),
        .sticky(sticky)
    );
    // The word, the mode and the range rule travel with the number.
    reg [40:0] aligned;
    reg [R+1:0] how;
    wire [7:0] rounded;
    fp8_round #(.MAN(MAN), .IEEE(IEEE), .R(R)) round (
        .sign(aligned[40]), .nan(aligned[39]), .infinite(aligned[38]), .binade(aligned[37:29]), .steps(aligned[28:25]),
        .fraction(aligned[24:1]), .sticky(aligned[0]), .stochastic(how[R+1]), .saturate(how[R]), .rbits(how[R-1:0]),
        .y(rounded)
    );
    always @(posedge clk) begin
        aligned <= {sign, nan, infinite, binade, steps, fraction, sticky};
        how <= {stochastic, saturate, rbits};
        y <= rounded;
    end
endmodule
`default_nettype wire

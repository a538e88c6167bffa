// The first half of the quantizer: fields of a float32, and its significand in units of the FP8 value's last bit.
//
// A float32 with the exponent field e (1 for subnormal numbers) is m 2^(e - 150), m of 24 bits. A normal FP8 value of that binade
// has the last bit 2^(e - 127 - MAN), so that DROP = 23 - MAN bits are discarded; below the smallest normal value, whose field
// would be LEAST, one more for each binade. 24 bits of the fraction are kept, and a sticky bit of what is below them.
`default_nettype none
module fp8_align #(
    parameter integer MAN = 3,
    parameter integer BIAS = 7
) (
    input wire [31:0] x,
    output wire sign,
    output wire nan,
    output wire infinite,
    output wire [8:0] binade,  // of the result: 0 for subnormal ones
    output wire [3:0] steps,  // the significand, cut to an integer
    output wire [23:0] fraction,
    output wire sticky
);
    localparam integer DROP = 23 - MAN;
    localparam integer LEAST = 128 - BIAS;
    wire [7:0] field = x[30:23];
    wire [8:0] e = (field == 0) ? 9'd1 : {1'b0, field};
    wire [23:0] m = {field != 0, x[22:0]};
    wire low = e < LEAST;
    wire [8:0] shift = low ? DROP + LEAST - e : DROP;
    wire [5:0] bounded = (shift > 9'd48) ? 6'd48 : shift[5:0];  // from 48 on nothing of m is left above the sticky bit
    wire [71:0] scaled = {m, 48'd0} >> bounded;
    assign sign = x[31];
    assign nan = &field & (|x[22:0]);
    assign infinite = &field & ~(|x[22:0]);
    assign binade = low ? 9'd0 : e - (LEAST - 1);
    assign steps = scaled[51:48];
    assign fraction = scaled[47:24];
    assign sticky = |scaled[23:0] | ((shift > 9'd48) & (m != 0));
endmodule
`default_nettype wire

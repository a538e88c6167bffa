// int32 to int8: x MULTIPLIER 2^-(31 + SHIFT), rounded once with ties up, and saturated.
`default_nettype none
module int8_requantize #(
    parameter signed [32:0] MULTIPLIER = 33'sd1518500250,
    parameter integer SHIFT = 8
) (
    input wire signed [31:0] x,
    output reg signed [7:0] y
);
    wire signed [65:0] product = x * MULTIPLIER + (66'sd1 <<< (30 + SHIFT));
    wire signed [65:0] scaled = product >>> (31 + SHIFT);
    always @* begin
        if (scaled > 66'sd127) y = 8'sd127;
        else if (scaled < -66'sd128) y = -8'sd128;
        else y = scaled[7:0];
    end
endmodule
`default_nettype wire

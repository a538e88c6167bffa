// Four products of int8 and an int32 accumulator, exact but for the last sum, which saturates.
`default_nettype none
module int8_dot (
    input wire signed [7:0] a0, a1, a2, a3,
    input wire signed [7:0] b0, b1, b2, b3,
    input wire signed [31:0] c,
    output reg signed [31:0] d
);
    wire signed [17:0] products = a0 * b0 + a1 * b1 + a2 * b2 + a3 * b3;
    wire signed [32:0] sum = products + c;
    always @* begin
        if (sum[32] != sum[31]) d = sum[32] ? 32'sh80000000 : 32'sh7fffffff;
        else d = sum[31:0];
    end
endmodule
`default_nettype wire

// Read vectors of `qsim vectors` (a line is x, rbits, code), drive the quantizer, write its answers, a code a line.
//
// vvp takes +vectors=FILE +answers=FILE +lines=N. N is in the manifest: $readmemh says nothing of a short file, and what is not
// there is x, which the word below is compared with by ===. Digits too many would drop the top ones, so that the width is fixed.
`default_nettype none
module bench;
    parameter integer R = 8;
    parameter integer STOCHASTIC = 0;
    parameter integer SATURATE = 1;
    parameter integer MAN = 3;
    parameter integer BIAS = 7;
    parameter integer IEEE = 0;
    localparam integer WORD = 4 * ((R + 3) / 4);
    localparam integer WIDTH = 40 + (STOCHASTIC ? WORD : 0);
    reg [WIDTH-1:0] vectors[0:(1 << 20) - 1];
    reg [1023:0] vectors_file, answers_file;
    reg [31:0] x;
    reg [R-1:0] rbits;
    wire [7:0] y, late;
    reg clk;
    integer lines, i, file, wrong;
    fp8_quantize #(.MAN(MAN), .BIAS(BIAS), .IEEE(IEEE), .R(R)) dut (
        .x(x), .stochastic(STOCHASTIC != 0), .saturate(SATURATE != 0), .rbits(rbits), .y(y)
    );
    fp8_quantize_pipelined #(.MAN(MAN), .BIAS(BIAS), .IEEE(IEEE), .R(R)) pipelined (
        .clk(clk), .x(x), .stochastic(STOCHASTIC != 0), .saturate(SATURATE != 0), .rbits(rbits), .y(late)
    );
    initial begin
        if (!$value$plusargs("vectors=%s", vectors_file) || !$value$plusargs("answers=%s", answers_file)
            || !$value$plusargs("lines=%d", lines)) $fatal(1, "say +vectors=FILE +answers=FILE +lines=N");
        $readmemh(vectors_file, vectors, 0, lines - 1);
        file = $fopen(answers_file, "w");
        wrong = 0;
        clk = 0;
        for (i = 0; i < lines; i = i + 1) begin
            if (^vectors[i] === 1'bx) $fatal(1, "vector %0d is not in the file, or has x digits", i);
            x = vectors[i][WIDTH-1-:32];
            rbits = STOCHASTIC ? vectors[i][8+:R] : 0;
            #1 clk = 1;
            #1 clk = 0;
            #1 clk = 1;
            #1 clk = 0;
            if (late !== y) wrong = wrong + 1;
            $fdisplay(file, "%h", y);
        end
        $fclose(file);
        if (wrong != 0) $fatal(1, "the pipeline differs on %0d vectors", wrong);
        $finish;
    end
endmodule
`default_nettype wire

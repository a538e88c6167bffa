// Read vectors of `qsim vectors` for int32 (a line is x, code), drive the requantizer, write its answers.
`default_nettype none
module bench_requantize;
    reg [39:0] vectors[0:(1 << 20) - 1];
    reg [1023:0] vectors_file, answers_file;
    reg signed [31:0] x;
    wire signed [7:0] y;
    integer lines, i, file;
    int8_requantize dut (.x(x), .y(y));
    initial begin
        if (!$value$plusargs("vectors=%s", vectors_file) || !$value$plusargs("answers=%s", answers_file)
            || !$value$plusargs("lines=%d", lines)) $fatal(1, "say +vectors=FILE +answers=FILE +lines=N");
        $readmemh(vectors_file, vectors, 0, lines - 1);
        file = $fopen(answers_file, "w");
        for (i = 0; i < lines; i = i + 1) begin
            if (^vectors[i] === 1'bx) $fatal(1, "vector %0d is not in the file, or has x digits", i);
            x = vectors[i][39:8];
            #1 $fdisplay(file, "%h", y);
        end
        $fclose(file);
        $finish;
    end
endmodule
`default_nettype wire

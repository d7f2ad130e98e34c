package gnet

import (
	"os"
	"runtime/metrics"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// memory is how many bytes the process has from the kernel and has not given back.
func memory() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}

// errorsOnly is a logger for gnet that writes errors to standard error. gnet's own writes
// everything to standard output.
func errorsOnly() *zap.SugaredLogger {
	message := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "message"})
	return zap.New(zapcore.NewCore(message, zapcore.Lock(os.Stderr), zap.ErrorLevel)).Sugar()
}

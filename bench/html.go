package bench
import "io"
func (r *Results) HTML(w io.Writer) error { return nil }

package stage

import "crashcourse/pkg/wire"

// LastPublisher is the number of the process that was the last to publish, or 0.
func LastPublisher(since Source) (process int) {
	for _, m := range since(0) {
		if m.Effect == wire.Publish {
			process = m.Process
		}
	}
	return process
}

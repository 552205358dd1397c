package inbox

import "testing"

func TestHandle(t *testing.T) { CheckHandle(t, Handle) }

func TestConsume(t *testing.T) { CheckConsume(t, Consume) }

func TestBatch(t *testing.T) { CheckBatch(t, Batch) }

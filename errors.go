package mount

import (
	stderrors "errors"

	"github.com/pkg/errors"
)

var (
	// ErrNotImplementOnWindows is the error of an action that Windows does not
	// have. It matches errors.ErrUnsupported.
	ErrNotImplementOnWindows = errors.WithMessage(stderrors.ErrUnsupported, "not implemented under windows")

	// ErrNotImplementOnUnix is the error of an action that only Windows has,
	// such as mounting a layer. It matches errors.ErrUnsupported.
	ErrNotImplementOnUnix = errors.WithMessage(stderrors.ErrUnsupported, "not implemented under unix")
)

package table

import (
	"bufio"
	stderrors "errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/winfs"
)

// Mount is the record of a mount, together with its file. Only the holder of the layer's lock may save or
// remove it.
type Mount struct {
	Record
	Name
	table *Table
	file  *os.File
	size  int64 // size of the complete lines in the file
}

// Create creates the file of a new mount and writes its first line. Create does not flush the file: the line
// matters only while the layer may be open, and after a power failure no layer is open.
func (t *Table) Create(layer, target Key, r Record) (*Mount, error) {
	m, err := t.open(Name{t.boot, layer, target}, os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, errors.Wrap(err, "mount table")
	}
	m.Record = r
	if err := m.Save(false); err != nil {
		return nil, stderrors.Join(err, errors.WithMessage(m.Remove(), "undo"))
	}
	return m, nil
}

func (t *Table) open(n Name, flag int) (m *Mount, err error) {
	m = &Mount{Name: n, table: t}
	err = winfs.WhileBusy(t.pause, func() (err error) {
		m.file, err = winfs.OpenPrivate(t.path(n), flag)
		return err
	})
	return m, err
}

func (t *Table) path(n Name) string { return filepath.Join(t.mounts(), n.String()) }

// Load returns the mount of that name. The error matches os.ErrNotExist if the mount has been unmounted in the
// meantime, and ErrDamaged if this package cannot have written the file.
//
// A file may have no record for one of two reasons. If it has no complete line, the process that created it was
// killed before it did anything else. If it is of an earlier start of Windows and none of its lines counts, a
// power failure destroyed its content, before anything was done at the target. In both cases Load returns a
// mount that is Closed and has no target: only its file is left to be removed.
func (t *Table) Load(n Name) (*Mount, error) {
	m, err := t.open(n, 0)
	if errors.Is(err, winfs.ErrUntrusted) {
		return nil, m.damaged(err)
	}
	if err != nil {
		return nil, errors.Wrap(err, "mount table")
	}
	data, err := io.ReadAll(bufio.NewReaderSize(m.file, 1<<14)) // most files in one read
	if err != nil {
		m.Release()
		return nil, errors.Wrap(err, "mount table")
	}
	m.Record, m.size, err = decode(data)
	if err == nil && m.State == "" {
		if m.State = Closed; m.size > 0 && !t.IsStale(n) {
			err = errors.New("no complete record")
		}
	}
	if err != nil {
		m.Release()
		return nil, m.damaged(err)
	}
	return m, nil
}

func (m *Mount) damaged(err error) error {
	return errors.WithStack(fmt.Errorf("mount table: %w %s: %w", ErrDamaged, m.table.path(m.Name), err))
}

// Save appends the record as it is now to its file. If durable is set, Save flushes the file. Set durable if
// something that survives a power failure, such as a link, depends on the record.
//
// If Save fails, it cuts off what it has written, so that the table has the previous record. If that fails as
// well, the error says so.
func (m *Mount) Save(durable bool) error {
	line := m.encode()
	_, err := m.file.WriteAt(line, m.size)
	if err == nil && durable {
		err = m.file.Sync()
	}
	if err != nil {
		err = stderrors.Join(err, errors.WithMessage(m.file.Truncate(m.size), "undo")) // otherwise the line might count
		return errors.Wrapf(err, "mount table: record layer %s at %s", m.Source, m.Target)
	}
	m.size += int64(len(line))
	return nil
}

// Remove removes the mount from the table.
func (m *Mount) Remove() error {
	err := winfs.WhileBusy(m.table.pause, func() error { return winfs.RemoveOpen(m.file) })
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return errors.Wrapf(err, "mount table: remove the record of layer %s at %s", m.Source, m.Target)
	}
	return nil
}

// Release closes the file. It ignores the error of that: what had to be durable has been flushed.
func (m *Mount) Release() { _ = m.file.Close() }

// Discard removes the file of that name, whatever it contains. It returns nil if there is no such file.
func (t *Table) Discard(n Name) error {
	err := winfs.WhileBusy(t.pause, func() error { return os.Remove(t.path(n)) })
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return errors.Wrap(err, "mount table")
}

package mount

import (
	stderrors "errors"
	"os"

	"github.com/pkg/errors"
)

// entry is the record of a layer with its file. Only the holder of the layer's lock may save or drop it.
type entry struct {
	record
	table *table
	file  *os.File
	size  int64 // of the whole lines in the file
}

// maxSize is the size beyond which a file is rewritten and not appended to. That of a base layer reaches
// it when the layer is mounted at one target after another for as long as the system runs.
const maxSize = 1 << 16

// save writes the record as it is now to the table. Durable must be set when something that outlives a
// power failure, such as a link, depends on the record. After a failure the table has the record as it was,
// unless what was written cannot be cut off again, which is part of the error.
func (e *entry) save(durable bool) error {
	err := e.append(durable)
	return errors.Wrapf(err, "mount table: failed to record layer %s", e.Source)
}

func (e *entry) append(durable bool) error {
	if e.file == nil || e.size > maxSize {
		return e.write()
	}
	n, err := e.file.WriteAt(e.encode(), e.size)
	if err == nil && durable {
		err = e.file.Sync()
	}
	if err != nil {
		return stderrors.Join(err, e.file.Truncate(e.size)) // or the line could count all the same
	}
	e.size += int64(n)
	return nil
}

// write replaces the file, durably, with one that holds nothing but the record.
func (e *entry) write() error {
	path, data := e.table.layerPath(e.Key), e.encode()
	if err := e.table.sweep(e.Key); err != nil {
		return err
	}
	file, err := e.table.openFile(path+unfinishedSuffix, true)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	e.close() // a file that is open cannot be replaced
	if err == nil {
		err = e.table.pause.whileBusy(func() error { return moveDurably(path+unfinishedSuffix, path) })
	}
	if err != nil {
		return stderrors.Join(err, file.Close())
	}
	e.file, e.size = file, int64(len(data))
	return nil
}

// drop removes the layer from the table, and its targets from the index.
func (e *entry) drop() error {
	e.close()
	err := e.table.remove(e.table.layerPath(e.Key))
	if err != nil {
		e.Boot = "" // the record stays, for Unmount: the layer is closed, or was never ours
		return stderrors.Join(err, e.save(false))
	}
	err = e.table.sweep(e.Key)
	for i := 0; i < len(e.Targets) && err == nil; i++ {
		err = e.table.removeIndex(e.Targets[i].Key, e.Key)
	}
	return err
}

// close closes the file. Its error is of no use: what had to be durable was flushed before.
func (e *entry) close() {
	if e.file != nil {
		_ = e.file.Close()
		e.file = nil
	}
}

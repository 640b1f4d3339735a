package main

// mutants are the bugs. Those with wine are in code that only Windows has.
var mutants = []mutant{
	// The order of the steps, and their undo.
	{bug: "the layer is deactivated before it is unprepared", file: "hcs.go", run: "ReverseOrder",
		old: `		unprepareErr := errors.Wrapf(mt.hcs.UnprepareLayer(source), "failed to unprepare layer %s", source)
		if isNotOpen(unprepareErr) {
			unprepareErr = nil
		}
		if err := mt.tryDeactivate(source); err != nil {
			return stderrors.Join(unprepareErr, err)
		}
`,
		new: `		if err := mt.tryDeactivate(source); err != nil {
			return stderrors.Join(mt.hcs.UnprepareLayer(source), err)
		}
		_ = mt.hcs.UnprepareLayer(source)
`},
	{bug: "the layer is closed before its link is removed", file: "mounter.go", run: "TestUnmount|StaysOpen|TestAny",
		old: `	if err := mt.table.whileBusy(r.hide); err != nil {
		return err
	}
	return mt.release(r)
`,
		new: `	if err := mt.release(r); err != nil {
		return err
	}
	return mt.table.whileBusy(r.hide)
`},
	{bug: "a failed Prepare leaves the layer active", file: "hcs.go", run: "NoFault",
		old: `		return "", undone(err, mt.deactivate(l.source))
	}
	path, err = mt.mountPath`,
		new: `		return "", err
	}
	path, err = mt.mountPath`},
	{bug: "a failed GetLayerMountPath leaves the layer open", file: "hcs.go", run: "NoFault",
		old: `		return "", undone(err, mt.closeLayer(l.source))
`,
		new: `		return "", err
`},
	{bug: "a transient error of Activate leaves the disk attached", file: "hcs.go", run: "NoFault",
		old: `			return "", undone(err, mt.deactivate(l.source))
		}
		// Any other`,
		new: `			return "", err
		}
		// Any other`},
	{bug: "a layer that somebody else has open is closed", file: "hcs.go", run: "IsOpenElsewhere",
		old: `		// Any other refusal may mean that somebody else has the layer open, who
		// must keep it.
		return "", err
`,
		new: `		return "", undone(err, mt.closeLayer(l.source))
`},
	{bug: "a failed link leaves the layer open", file: "mounter.go", run: "Meanwhile|TestAny",
		old: `	if err := r.show(mt.table.whileBusy); err != nil {
		return withUndo(err, mt.release(r))
	}
`,
		new: `	if err := r.show(mt.table.whileBusy); err != nil {
		return err
	}
`},
	{bug: "an undo that fails is not in the error", file: "hcs.go", run: "FailedUndo",
		old: "	return fmt.Errorf(\"%w; undo: %w\", err, undo)\n",
		new: "	return fmt.Errorf(\"%w; undo: %v\", err, undo)\n"},
	{bug: "an undo that fails drops the record", file: "hcs.go", run: "FailedUndo|NoFault",
		old: `	return &leftOpen{withUndo(err, undo)}
`,
		new: `	return withUndo(err, undo)
`},
	{bug: "an undo that fails for an instant is not tried again", file: "hcs.go", run: "UndoThatFailsForAnInstant",
		old: "	return mt.retry(context.Background(), func() error { return mt.tryDeactivate(source) })\n",
		new: "	return mt.tryDeactivate(source)\n"},
	{bug: "Unprepare failing stops Deactivate", file: "hcs.go", run: "UnprepareFailing",
		old: `			unprepareErr = nil
		}
`,
		new: `			unprepareErr = nil
		}
		if unprepareErr != nil {
			return unprepareErr
		}
`},
	{bug: "the directory is not put back", file: "target.go", run: "PutBack",
		old: "	if !r.Replaced {\n", new: "	if true {\n"},
	{bug: "a directory above that has gone fails Unmount", file: "target.go", run: "HasGone",
		old: "	if errors.Is(err, os.ErrExist) || errors.Is(err, os.ErrNotExist) {\n		return nil\n	}\n	return errors.Wrap(err, \"failed to put",
		new: "	if errors.Is(err, os.ErrExist) {\n		return nil\n	}\n	return errors.Wrap(err, \"failed to put"},
	{bug: "UnmountAll unmounts once", file: "mounter.go", run: "UnmountAll",
		old: `		if found, err := mt.unmount(ctx, path); !found || err != nil {
			return err
		}
`,
		new: `		_, err := mt.unmount(ctx, path)
		return err
`},
	{bug: "what was mounted before a failure stays mounted", file: "mounter.go", run: "TestAll",
		old: "			return withUndo(err, mt.unmountMounts(context.Background(), mounts[:i], target))\n",
		new: "			return err\n"},
	{bug: "temporary mounts stay when the context ends", file: "temp.go", run: "WithTempMount",
		old: "		undo := mt.unmountMounts(context.Background(), mounts, root)\n",
		new: "		undo := mt.unmountMounts(ctx, mounts, root)\n"},
	{bug: "UnmountRecursive begins with the shallowest", file: "recursive.go", run: "Recursive",
		old: "len(records[i].Target) > len(records[j].Target)", new: "len(records[i].Target) < len(records[j].Target)"},

	// The record.
	{bug: "the record is written after the layer is activated", file: "mounter.go", run: "BeforeHCSIsCalled|Killed",
		old: `	if err := mt.table.add(r); err != nil {
		return withUndo(err, mt.table.drop(r))
	}
	if open == nil {
		if r.Volume, err = mt.openLayer(ctx, l); err != nil {
			var open *leftOpen
			if errors.As(err, &open) {
				return err // the record stays, for Unmount to close the layer
			}
			return withUndo(err, mt.table.drop(r))
		}
		if err := mt.table.update(r); err != nil {
			return withUndo(err, mt.release(r))
		}
	}
`,
		new: `	if open == nil {
		if r.Volume, err = mt.openLayer(ctx, l); err != nil {
			return err
		}
	}
	if err := mt.table.add(r); err != nil {
		return withUndo(err, mt.release(r))
	}
`},
	{bug: "the record is dropped while the layer is open", file: "mounter.go", run: "StaysOpen|NoFault",
		old: `		if err := mt.closeLayer(r.Source); err != nil {
			return err
		}
	}
	if err := mt.table`,
		new: `		if err := mt.closeLayer(r.Source); err != nil {
			return withUndo(err, mt.table.drop(r))
		}
	}
	if err := mt.table`},
	{bug: "the record is written in place", file: "table.go", run: "Killed",
		old: "	return t.write(t.pendingPath(r.TargetKey), data)\n",
		new: "	return stderrors.Join(t.write(t.recordPath(r.TargetKey), data), t.write(t.pendingPath(r.TargetKey), data))\n"},
	{bug: "the record is not on the disk when it gets its name", file: "table.go", run: "OnTheDisk",
		old: "			err = file.Sync()\n", new: "			err = nil\n"},
	{bug: "the mark is made before the pending record", file: "table.go", run: "Killed|NoFailedChange",
		old: `	err := t.writePending(r)
	if err == nil {
		err = t.makeDir(t.layerPath(r.SourceKey))
	}
`,
		new: `	err := t.makeDir(t.layerPath(r.SourceKey))
	if err == nil {
		err = t.write(t.markPath(r), nil)
	}
	if err == nil {
		err = t.writePending(r)
	}
`},
	{bug: "the record is removed before the mark", file: "table.go", run: "Killed|NoFailedChange",
		old: "	err := t.rename(t.recordPath(r.TargetKey), t.pendingPath(r.TargetKey))\n	for",
		new: "	err := t.remove(t.recordPath(r.TargetKey))\n	for"},
	{bug: "a pending record is not swept away", file: "mounter.go", run: "KilledWriter|Killed",
		old: `		if sweepErr := mt.sweep(ctx, target); sweepErr != nil {
			err = sweepErr
		}
`, new: ""},
	{bug: "a torn pending record stays", file: "table.go", run: "KilledWriter",
		old: `	if err := t.remove(path); err != nil {
		return record{}, errors.Wrap(err, "mount table")
	}
	return record{}, errors.WithStack(os.ErrNotExist)
`, new: "	return record{}, errors.WithStack(os.ErrNotExist)\n"},
	{bug: "a damaged record is followed", file: "record.go", run: "Truncated|WouldNotWrite",
		old: "	if !bytes.Equal(data, again) {\n", new: "	if !bytes.Equal(data, again) && false {\n"},
	{bug: "a record under another name is followed", file: "table.go", run: "Foreign",
		old: "	if err == nil && r.TargetKey != target {\n", new: "	if false {\n"},
	{bug: "a mark of another layer's target is believed", file: "table.go", run: "MarkOfAnother",
		old: "		if other.SourceKey == r.SourceKey {\n", new: "		if true {\n"},
	{bug: "closing is not marked", file: "mounter.go", run: "HalfOpen",
		old: `		if err := mt.table.setClosing(r); err != nil {
			return err
		}
`, new: ""},
	{bug: "a layer that is half closed counts as open", file: "record.go", run: "HalfOpen",
		old: "r.Volume != \"\" && !r.closing }", new: "r.Volume != \"\" }"},
	{bug: "a layer that is half open is not closed first", file: "mounter.go", run: "HalfOpen",
		old: "	return nil, mt.closeLayer(killed.Source)\n", new: "	return nil, nil\n"},
	{bug: "a link in place of the table is followed", file: "table_unix.go", run: "SwappedForALink",
		old: "	info, err := os.Lstat(path)\n", new: "	info, err := os.Stat(path)\n"},
	{bug: "a link in place of a record is followed", file: "table_unix.go", run: "Foreign",
		old: "os.O_RDONLY|syscall.O_NOFOLLOW", new: "os.O_RDONLY"},

	// One layer at several targets, and what HCS tells.
	{bug: "the layer is closed with its first target", file: "mounter.go", run: "SeveralTargets",
		old: "		if r.Volume == \"\" || strings.EqualFold(other.Volume, r.Volume) {\n			return false, nil\n		}\n",
		new: "		if true {\n			return true, nil\n		}\n"},
	{bug: "a record from before a reboot keeps the layer open", file: "mounter.go", run: "BeforeAReboot",
		old: "		open, err := mt.isOpen(context.Background(), other)\n		if open || err != nil {\n			return false, err\n		}\n",
		new: "		return false, nil\n"},
	{bug: "a layer at a second target is opened again", file: "mounter.go", run: "SeveralTargets",
		old: "		if open {\n			return other, nil\n		}\n", new: "		_ = open\n"},
	{bug: "after a reboot the layer counts as open", file: "mounter.go", run: "AfterAReboot|BeforeAReboot|TestAnySeq",
		old: "		return strings.EqualFold(path, r.Volume), nil\n	case isT", new: "		return path != \"\\x00\", nil\n	case isT"},
	{bug: "a layer that HCS cannot look at counts as closed", file: "mounter.go", run: "HCSCannotTell|TestAnySeq",
		old: "			return statErr == nil, nil\n", new: "			return false, nil\n"},
	{bug: "code 0x57 does not tell that a layer is closed", file: "mounter.go", run: "WhateverCode",
		old: "	case isNotOpen(err) || isAny(err, errorInvalidParameter):\n", new: "	case isNotOpen(err):\n"},
	{bug: "a layer that HCS forgot cannot be closed", file: "hcs.go", run: "AfterAReboot",
		old: "	return isAny(err, errorDevNotExist, errorFilterNotFound,\n		", new: "	return isAny(err, errorFilterNotFound,\n		"},
	{bug: "transient errors are final", file: "hcs.go", run: "TransientError",
		old: "	return !errors.As(err, &open) && isAny(err, errorNotReady, errorDeviceNotConnected)\n",
		new: "	return !errors.As(err, &open) && isAny(err, errorDeviceNotConnected)\n"},
	{bug: "six attempts", file: "retry.go", run: "TransientError",
		old: "	attempts     = 5\n", new: "	attempts     = 6\n"},
	{bug: "other errors are tried again", file: "retry.go", run: "OtherErrors",
		old: "		if err == nil || !forAnInstant(err) || attempt == attempts {\n", new: "		if err == nil || attempt == attempts {\n"},
	{bug: "what a scanner has open is not tried again", file: "target_other.go", run: "NoFailedChange",
		old: "errors.Is(err, syscall.EBUSY)", new: "errors.Is(err, syscall.EBUSY) && false"},
	{bug: "the source is not made clean", file: "mounter.go", run: "ShortestForm",
		old: "layer{filepath.Clean(m.Source), parents}", new: "layer{filepath.Dir(m.Source) + m.Source[len(filepath.Dir(m.Source)):], parents}"},

	// What a user has at the target.
	{bug: "any link is taken for ours", file: "target.go", run: "LeavesAlone",
		old: "	return err == nil && sameLink(text, r.link()), ", new: "	_ = text\n	return err == nil, "},
	{bug: "a directory that is not empty is replaced", file: "target.go", run: "InUse",
		old: "	if _, err := dir.Readdirnames(1); err == nil {\n", new: "	if _, err := dir.Readdirnames(1); false {\n"},
	{bug: "what came in place of the directory is removed", file: "target_other.go", run: "Meanwhile",
		old: "	return os.NewSyscallError(\"rmdir\", syscall.Rmdir(path))\n", new: "	_ = syscall.Rmdir\n	return os.Remove(path)\n"},
	{bug: "a live mount is replaced", file: "mounter.go", run: "LiveMount",
		old: "		if open {\n			return errors.Wrapf(os.ErrExist", new: "		if open && false {\n			return errors.Wrapf(os.ErrExist"},
	{bug: "a temporary directory is removed with what is in it", file: "temp.go", run: "WithTempMount|CleanupTemp",
		old: "	err := mt.table.whileBusy(func() error { return removeDir(root) })\n", new: "	err := os.RemoveAll(root)\n"},
	{bug: "CleanupTempMounts removes a user's directory", file: "temp.go", run: "CleanupTemp",
		old: "		if err == nil && r.Replaced {\n", new: "		if err == nil {\n"},
	{bug: "a link on the way to a sub-directory is followed", file: "paths.go", run: "CannotEscape",
		old: "		info, err := os.Lstat(path)\n", new: "		info, err := os.Stat(path)\n"},
	{bug: "a user's link to a layer stands for the layer", file: "hcs.go", run: "LinkToAnUnknownLayer",
		old: "	if info, err := os.Lstat(path); err != nil || !info.IsDir() {\n", new: "	if info, err := os.Stat(path); err != nil || !info.IsDir() {\n"},
	{bug: "an empty last element is accepted", file: "paths.go", run: "Malformed",
		old: "	case \"\", \".\", \"..\":\n", new: "	case \".\", \"..\":\n"},
	{bug: "a record that cannot be read again is written", file: "table.go", run: "ReadAgain",
		old: "	if again, err := decodeRecord(data); err != nil {\n		return err // nor could Unmount read it\n	} else if again != r {", new: "	if again, err := decodeRecord(data); err != nil && false {\n		return err\n	} else if again != r && false {"},
	{bug: "a target whose way has gone is not reached", file: "target.go", run: "HasGone",
		old: "err != nil || now != r.TargetKey {", new: "false && (err != nil || now != r.TargetKey) {"},
	{bug: "a link that leads elsewhere leads to a target", file: "recursive.go", run: "LeadsElsewhere",
		old: "		r = r.reachable()\n", new: ""},
	{bug: "a foreign file counts as a record", file: "table.go", run: "ReportsWhatItCannotRead",
		old: " || extension != \".json\" && extension != \".pending\"", new: ""},
	{bug: "a parent without an ID is accepted", file: "parentpaths.go", run: "GetParentPathsRefuses",
		old: "	return checkID(path)\n", new: "	return nil\n"},

	// The locks.
	{bug: "the target is not locked", file: "mounter.go", run: "AtOnce|Processes",
		old: "	unlockTarget, err := mt.table.lockTarget(ctx, r.TargetKey)\n	if err != nil {\n		return err\n	}\n	defer unlockTarget()\n	if err := mt.clear", new: "	if err := mt.clear"},
	{bug: "the layer is not locked", file: "mounter.go", run: "AtOnce|Processes",
		old: "	unlockSource, err := mt.table.lockSource(ctx, r.SourceKey)\n	if err != nil {\n		return err\n	}\n	defer unlockSource()\n	return mt.show", new: "	return mt.show"},
	{bug: "an unknown layer is closed without its lock", file: "mounter.go", run: "MountedMeanwhile",
		old: "	unlock, err := mt.table.lockSource(ctx, source)\n	if err != nil {\n		return false, err\n	}\n	defer unlock()\n	others", new: "	others"},
	{bug: "a target that is mounted meanwhile stands for its layer", file: "mounter.go", run: "MountedMeanwhileLeaves",
		old: "	if mt.table.has(target) {\n		return \"\", true, nil\n	}\n", new: ""},
	{bug: "a mark of another layer is believed", file: "mounter.go", run: "NotBelieved",
		old: "	if source != \"\" && source", new: "	if source == \"-\" && source"},
	{bug: "a layer that other code has open is activated", file: "hcs.go", run: "OpenElsewhere",
		old: "err == nil && isVolume(path) {", new: "err == nil && isVolume(path) && false {"},
	{bug: "the undo closes a read-only layer that other code has prepared", file: "hcs.go", run: "OpenElsewhere",
		old: "isAny(err, errorInvalidParameter) && isReadOnly(l.source) {", new: "isAny(err, errorInvalidParameter) && false {"},
	{bug: "a scratch stays active when it is refused", file: "hcs.go", run: "OtherErrors",
		old: "isAny(err, errorInvalidParameter) && isReadOnly(l.source) {", new: "isAny(err, errorInvalidParameter) {"},
	{bug: "UnmountRecursive reports damaged records elsewhere", file: "recursive.go", run: "DamagedRecordElsewhere",
		old: "		if !errors.Is(err, errDamaged) {\n", new: "		if true {\n"},
	{bug: "UnmountRecursive leaves out what cannot be read", file: "recursive.go", run: "RecursiveReports",
		old: "		if !errors.Is(err, errDamaged) {\n", new: "		if false {\n"},
	{bug: "UnmountRecursive waits for other targets", file: "recursive.go", run: "DoesNotWait",
		old: "		r, err := mt.table.peek(target)\n", new: "		unlock, err := mt.table.lockTarget(context.Background(), target)\n		if err == nil {\n			unlock()\n		}\n		r, err := mt.table.peek(target)\n"},
	{bug: "a pending record is not looked at", file: "table.go", run: "CleanupTemp",
		old: "	r, err = t.readRecord(t.pendingPath(target), target)\n	if errors.Is(err, errDamaged) {\n", new: "	if true {\n"},
	{bug: "a record that is being written is a damaged one", file: "table.go", run: "BeingWritten",
		old: "	if errors.Is(err, errDamaged) {\n		return record{}", new: "	if false {\n		return record{}"},
	{bug: "the wait for a layer does not end with its context", file: "lock.go", run: "EndsTheWait",
		old: "	return t.lock(ctx, \"s\"+string(source))\n", new: "	return t.lock(context.Background(), \"s\"+string(source))\n"},
	{bug: "a pending record is dropped without the layer's lock", file: "mounter.go", run: "SweptAwayUnder",
		old: "	unlock, err := mt.table.lockSource(ctx, r.SourceKey)\n	if err != nil {\n		return err\n	}\n	defer unlock()\n	return mt.table.drop(r)\n", new: "	return mt.table.drop(r)\n"},
	{bug: "a context that ends lets the volume tell", file: "mounter.go", run: "EndsTheQuestion",
		old: "	case isTransient(err) && ctx.Err() != nil:\n", new: "	case false:\n"},
	{bug: "a layer that is not prepared is an error", file: "hcs.go", run: "NotOpenAnyway",
		old: "		if isNotOpen(unprepareErr) {\n", new: "		if false {\n"},
	{bug: "what was begun of a record stays in the table", file: "mounter.go", run: "FailedChange",
		old: "		return withUndo(err, mt.table.drop(r))\n	}\n	if open == nil {\n", new: "		return err\n	}\n	if open == nil {\n"},
	{bug: "a target below a file is looked at as if it were absent", file: "target.go", run: "BelowAFile", wine: true,
		old: "		if err == nil && !parent.IsDir() {", new: "		if err == nil && false && !parent.IsDir() {"},
	{bug: "goroutines wait for the file lock", file: "lock.go", run: "NoThread|ThatWait|EndsWithTheContext",
		old: "	leave, err := queue(ctx, t.dir+name)\n", new: "	leave, err := func() {}, ctx.Err()\n"},
	{bug: "processes do not wait", file: "table_unix.go", run: "Processes|TooLate",
		old: "syscall.LOCK_EX)", new: "syscall.LOCK_SH)"},
	{bug: "each wait that has ended blocks a thread", file: "lock.go", run: "BlockOneThread",
		old: "	case <-ctx.Done():\n		// The system", new: "	case <-ctx.Done():\n		leave()\n		leave = func() {}\n		// The system"},
	{bug: "a lock that comes too late is kept", file: "lock.go", run: "TooLate",
		old: "				r.unlock()\n", new: "				_ = r\n"},
	{bug: "a lock that nobody waits for is remembered", file: "lock.go", run: "EndsWithTheContext",
		old: "		if w.users--; w.users == 0 {\n", new: "		if w.users--; false {\n"},
	{bug: "Lookup does not wait", file: "lookup.go", run: "LookupWaits",
		old: "	unlock, err := mt.table.lockTarget(ctx, target)\n	if err != nil {\n		return Info{}, err\n	}\n	defer unlock()\n", new: "	_ = ctx\n"},
	{bug: "Mount reads the whole table", file: "mounter.go", run: "ReadNothing",
		old: "	others, err := mt.table.others(r)\n	if err != nil {\n		return nil, err\n	}\n	var killed", new: "	if _, foreign, _ := mt.table.list(); len(foreign) > 0 {\n		return nil, foreign[0]\n	}\n	others, err := mt.table.others(r)\n	if err != nil {\n		return nil, err\n	}\n	var killed"},

	// What Windows alone has.
	{bug: "a table of another owner is believed", file: "table_windows.go", run: "AnotherOwner", wine: true,
		old: "owner.IsWellKnown(windows.WinLocalSystemSid) || ", new: "owner.IsWellKnown(windows.WinLocalSystemSid) || true || "},
	{bug: "a record of another owner is believed", file: "table_windows.go", run: "AnotherOwner", wine: true,
		old: "	if _, err := checkOwner(handle, path); err != nil {\n", new: "	if false {\n"},
	{bug: "the lock does not exclude", file: "table_windows.go", run: "OnlyOne", wine: true,
		old: "windows.LOCKFILE_EXCLUSIVE_LOCK", new: "0"},
	{bug: "a file that a scanner has open is not tried again", file: "target_windows.go", run: "Scanner", wine: true,
		old: "windows.ERROR_SHARING_VIOLATION, windows.ERROR_ACCESS_DENIED, ", new: "windows.ERROR_ACCESS_DENIED, "},
	{bug: "a target that a scanner has open is not tried again", file: "mounter.go", run: "Scanner", wine: true,
		old: "	err = mt.table.whileBusy(func() (err error) {\n		r.Replaced, err = inspect(target)\n		return err\n	})\n	if err", new: "	r.Replaced, err = inspect(target)\n	if err"},
	{bug: "a directory that a scanner has open is not replaced", file: "target.go", run: "Scanner", wine: true,
		old: "whileBusy(func() error { return removeDir(r.Target) })", new: "removeDir(r.Target)"},
	{bug: "a temporary directory that a scanner has open stays", file: "temp.go", run: "Scanner", wine: true,
		old: "mt.table.whileBusy(func() error { return removeDir(root) })", new: "removeDir(root)"},
	{bug: "a list that a scanner has open is not read again", file: "retry.go", run: "Scanner", wine: true,
		old: "	err = t.whileBusy(func() error {\n		entries, err = os.ReadDir(path)\n		return err\n	})\n	return entries, err\n", new: "	return os.ReadDir(path)\n"},
	{bug: "codes of HCS cannot be matched", file: "mount_windows.go", run: "HRESULT", wine: true,
		old: "	return &codedError{err, syscall.Errno(uint32(code))}\n", new: "	return err\n"},
	{bug: "a code has more than 32 bits", file: "mount_windows.go", run: "HRESULT", wine: true,
		old: "syscall.Errno(uint32(code))", new: "code"},
	{bug: "a target in another case is another target", file: "target_windows.go", run: "AnyCase", wine: true,
		old: "unicode.ToUpper(lower) == r {", new: "unicode.ToUpper(lower) == r && false {"},
	{bug: "the Kelvin sign is a k", file: "target_windows.go", run: "UpperCaseLetters", wine: true,
		old: "unicode.ToUpper(lower) == r {", new: "lower != r {"},
	{bug: "a target whose long name is another path is mounted", file: "table.go", run: "LongName", wine: true,
		old: "	if again, err := decodeRecord(data); err != nil {", new: "	if again, err := decodeRecord(data); err != nil && false {"},
	{bug: "an 8.3 name is another target", file: "target_windows.go", run: "ShortName", wine: true,
		old: "	return windows.UTF16ToString(data.FileName[:])\n", new: "	return filepath.Base(path)\n"},
	{bug: "a long path is cut off", file: "target_windows.go", run: "MayBeLong", wine: true,
		old: "		buf = make([]uint16, n)\n", new: "		return windows.UTF16ToString(buf), nil\n"},
	{bug: "the root of a volume reaches HCS", file: "mounter.go", run: "ARootIsNoLayer", wine: true,
		old: "	if err := checkSource(path); err != nil {\n		return false, err\n	}\n", new: ""},
	{bug: "a path that Windows reads as another reaches HCS", file: "paths.go", run: "ReadsAsSomethingElse", wine: true,
		old: "	if last := element[len(element)-1]; last == '.' || last == ' ' {\n", new: "	if last := byte(0); last != 0 {\n"},
	{bug: "a handle is not closed", file: "table_windows.go", run: "ThousandsOf", wine: true,
		old: "		_ = windows.UnlockFileEx(handle, 0, 1, 0, overlapped)\n		_ = windows.CloseHandle(handle)\n", new: "		_ = windows.UnlockFileEx(handle, 0, 1, 0, overlapped)\n"},
}

package main

// mutants are the bugs. Those with wine are in code that only Windows has, or in
// what only Windows asks of the rest.
var mutants = []mutant{
	// The order of the steps.
	{bug: "HCS opens a layer that is on no record", file: "mounter.go", run: "WrittenBeforeHCS",
		old: `	if err = mt.table.addIndex(at.Key, r.Key); err == nil {
		err = e.save(true)
	}
`,
		new: `	err = mt.table.addIndex(at.Key, r.Key)
`},
	{bug: "the index is made after the record", file: "mounter.go", run: "KilledAtAny/likely",
		old: `	if err = mt.table.addIndex(at.Key, r.Key); err == nil {
		err = e.save(true)
	}
`,
		new: `	if err = e.save(true); err == nil {
		err = mt.table.addIndex(at.Key, r.Key)
	}
`},
	{bug: "the link is made before its volume is on record", file: "mounter.go", run: "KilledAtAny/likely",
		old: "err == nil {\n			err = e.save(true)\n",
		new: "err == nil {\n			err = nil\n"},
	{bug: "the layer is closed before its link is removed", file: "mounter.go", run: "IsGoneBefore",
		old: "	err := mt.hideAll(e, leaving)\n",
		new: `	if isOurs && len(rest.Targets) == 0 {
		_ = mt.closeForCertain(&e.record)
	}
	err := mt.hideAll(e, leaving)
`},
	{bug: "the index goes before the record", file: "table_entry.go", run: "KilledAtAny/likely",
		old: "func (e *entry) drop() error {\n",
		new: `func (e *entry) drop() error {
	for _, at := range e.Targets {
		if err := e.table.removeIndex(at.Key, e.Key); err != nil {
			return err
		}
	}
`},

	// The undo.
	{bug: "a failed Prepare leaves the layer active", file: "layer.go", run: "NoFault/likely|OtherErrors",
		old: `	return o.closeAfter(err, r)
}

// mountPath`,
		new: `	return err
}

// mountPath`},
	{bug: "a failed GetLayerMountPath leaves the layer open", file: "layer.go", run: "OtherErrors",
		old: `			return o.closeAfter(err, r)
		}
		return nil
`,
		new: `			return err
		}
		return nil
`},
	{bug: "a transient error of Activate leaves the disk attached", file: "layer.go", run: "TransientError",
		old: "		closeErr := o.closeLayer(r)\n",
		new: "		closeErr := error(nil)\n"},
	{bug: "a doubtful undo of Activate counts as done", file: "layer.go", run: "DoubtfulIsOnRecord",
		old: "	if err != nil && doubtful && ", new: "	if false && "},
	{bug: "a late volume of a failed Activate is not waited for", file: "layer.go", run: "AttachedTheDisk",
		old: "o.pause.until(context.Background(), func() bool { return o.volumeOf(r.Source) != \"\" }):", new: "o.volumeOf(r.Source) != \"\":"},
	{bug: "a layer of other code is on record as ours", file: "table_entry.go", run: "NoFailedChange",
		old: "		e.Boot = \"\" // the record", new: "		// the record"},
	{bug: "a failed link leaves the layer open", file: "mounter.go", run: "Meanwhile|NotFollowed",
		old: "		return withUndo(err, mt.unmountFrom(e, added))\n", new: "		return err\n"},
	{bug: "a record that cannot be written leaves its index", file: "mounter.go", run: "CannotBeWritten|NoFailedChange/likely",
		old: "		return withUndo(err, stderrors.Join(mt.table.sweep(r.Key), mt.table.remove(mt.table.indexPath(at.Key))))\n", new: "		return err\n"},
	{bug: "a record that could not be flushed counts", file: "table_entry.go", run: "NoFailedChange",
		old: "		return stderrors.Join(err, e.file.Truncate(e.size))", new: "		return err"},
	{bug: "an undo that fails is not in the error", file: "layer_codes.go", run: "FailedUndo",
		old: "	return fmt.Errorf(\"%w; undo: %w\", err, undo)\n", new: "	return err\n"},
	{bug: "an undo that fails drops the record", file: "layer.go", run: "FailedUndo",
		old: "	return mark(withUndo(err, closeErr), errLeftOpen)\n", new: "	return withUndo(err, closeErr)\n"},

	// The locks.
	{bug: "two Mounts have the same target", file: "mounter.go", run: "OfTwoMounts",
		old: `	unlockTarget, err := mt.table.lockTarget(at.Key)
	if err != nil {
		return err
	}
	defer unlockTarget()
`, new: ""},
	{bug: "Mount does not lock the layer", file: "mounter.go", run: "Goroutines",
		old: `	unlockLayer, err := mt.table.lockLayer(r.Key)
	if err != nil {
		return err
	}
	defer unlockLayer()
`, new: ""},
	{bug: "an unknown layer is closed without its lock", file: "mounter.go", run: "MountedMeanwhile",
		old: `(path string, layer key) error {
	unlock, err := mt.table.lockLayer(layer)
	if err != nil {
		return err
	}
	defer unlock()
`,
		new: "(path string, layer key) error {\n"},
	{bug: "processes do not exclude each other", file: "table_windows.go", run: "OnlyOne", wine: true,
		old: "windows.LOCKFILE_EXCLUSIVE_LOCK|flags", new: "flags"},
	{bug: "who reads a record waits for its layer", file: "table.go", run: "DoNotWait",
		old: "func (t *table) read(layer key) (record, error) {\n",
		new: `func (t *table) read(layer key) (record, error) {
	unlock, err := t.lockLayer(layer)
	if err != nil {
		return record{}, err
	}
	defer unlock()
`},

	// Whom the table trusts.
	{bug: "a directory of another owner is believed", file: "table_windows.go", run: "Another", wine: true,
		old: "	if err = checkTrust(dir); err == nil {\n", new: "	if true {\n"},
	{bug: "a record of another owner is believed", file: "table.go", run: "AnotherOwner", wine: true,
		old: "	trustErr := checkTrust(file)\n", new: "	trustErr := error(nil)\n"},
	{bug: "a directory that a user made in advance blocks every Mount", file: "table.go", run: "Another", wine: true,
		old: "	if !errors.Is(err, errUntrusted) {\n", new: "	if true {\n"},
	{bug: "a directory with other files becomes the table", file: "table.go", run: "ThatHoldsAnythingElse",
		old: "		if !slices.Contains(", new: "		if false && !slices.Contains("},

	// One layer at several targets.
	{bug: "the layer is closed with its first target", file: "mounter.go", run: "SeveralTargets",
		old: "	if !isOurs || !rest.isShown() {\n", new: "	if true {\n"},
	{bug: "a killed Mount keeps the layer open", file: "mounter.go", run: "LastTarget",
		old: "	if !isOurs || !rest.isShown() {\n", new: "	if !isOurs {\n"},
	{bug: "a layer that is half open is shown", file: "mounter.go", run: "HalfOpen",
		old: "e.isShown() && mt.isOpen", new: "mt.isOpen"},
	{bug: "a mount that is being taken away counts as shown", file: "mounter.go", run: "HalfOpen|KilledAtAny/likely",
		old: "		at.Shown = false\n	}\n	// Should", new: "	}\n	// Should"},

	// What a restart leaves.
	{bug: "after a restart HCS is asked to close the layer", file: "mounter.go", run: "AfterAReboot",
		old: "	isOurs := e.Boot == mt.boot && (", new: "	isOurs := true || ("},
	{bug: "a layer from before a restart counts as open", file: "mounter.go", run: "AfterAReboot",
		old: "{ return r.Boot == mt.boot && mt.mayBeOpen(r) }", new: "{ return mt.mayBeOpen(r) }"},

	// What proves that a layer is open or closed.
	{bug: "a layer that other code has opened again is closed", file: "mounter.go", run: "OpenedOnceMore",
		old: " && (!e.isShown() || mt.isOpen(&e.record))\n", new: "\n"},
	{bug: "a repeated Unmount closes a layer that other code has opened again", file: "layer.go", run: "OnceOtherCodeHasOpened",
		old: "now != \"\" && !strings", new: "false && !strings"},
	{bug: "HCS refusing keeps a layer open whose volume has gone", file: "layer.go", run: "OnceItsVolumeHasGone",
		old: "		if !isReachable(r.Volume) {\n", new: "		if !isReachable(r.Volume) && deactivateErr == nil {\n"},
	{bug: "HCS reporting success closes a layer whose volume is there", file: "layer.go", run: "NoFault/(prepared-ignored|all-different-a)",
		old: "		if !isReachable(r.Volume) {\n", new: "		if !isReachable(r.Volume) || unprepared && deactivateErr == nil {\n"},
	{bug: "a refused Unprepare of a read-only layer is passed over", file: "layer.go", run: "UnprepareSaysSo",
		old: "	case unprepared && (deactivateErr == nil || r.ReadOnly):\n", new: "	case deactivateErr == nil && (unprepared || true):\n"},
	{bug: "a killed Mount stays where HCS refuses to close what is closed", file: "layer.go", run: "RefusesToClose",
		old: "	if err == nil || isVolume(r.Volume) || o.hcs", new: "	if true || o.hcs"},
	{bug: "a layer that other code has closed is shown", file: "layer.go", run: "OtherCodeHasClosed",
		old: "bool { return isReachable(r.Volume) })", new: "bool { return true })"},

	// What is tried again.
	{bug: "a sharing violation of Activate is final", file: "layer_codes.go", run: "TransientError",
		old: "append([]syscall.Errno{errorSharingViolation}, transient...)", new: "transient"},
	{bug: "a layer that other code has open is closed", file: "layer.go", run: "OpenElsewhere",
		old: "		// Somebody else may have the layer open, and must keep it.\n		return mark(err, errAgain)\n",
		new: "		return o.closeAfter(mark(err, errAgain), r)\n"},
	{bug: "a timeout of Prepare is final", file: "layer_codes.go", run: "TransientError",
		old: "append([]syscall.Errno{errorTimeout}, transient...)", new: "transient"},
	{bug: "a volume that lingers after a close is taken for an open layer", file: "layer.go", run: "ForAnInstantAfterAClose",
		old: "	o.pause.until(ctx, func() bool {\n		volume =", new: "	func(ask func() bool) { ask() }(func() bool {\n		volume ="},

	// The files of the table.
	{bug: "a line with another checksum counts", file: "table_record.go", run: "AnotherChecksum",
		old: "		if string(sum) != fmt.Sprintf(\"%08x\", crc32.ChecksumIEEE(text)) {\n", new: "		if _ = sum; text == nil {\n"},
	{bug: "an index of another layer goes with a record", file: "table.go", run: "IndexOfAnotherLayer",
		old: "now.valid() && now != layer", new: "now == \"\""},
	{bug: "a newer format is read as this one", file: "table_record.go", run: "Damaged",
		old: "major != \"1\" {", new: "major == \"\" {"},
	{bug: "a line without its end counts", file: "table_record.go", run: "LastWholeLine",
		old: "	lines = lines[:len(lines)-1] // what follows the last end of a line\n", new: ""},
	{bug: "a record is moved into place before it is on the disk", file: "table_entry.go", run: "OnTheDiskBefore|APowerLoss/likely",
		old: "		err = file.Sync()\n	}\n	e.close()", new: "		err = nil\n	}\n	e.close()"},
	{bug: "the volume is not on the disk before the link", file: "table_entry.go", run: "OnTheDiskBefore",
		old: "		err = e.file.Sync()\n", new: "		err = nil\n"},

	// What a user has at the target.
	{bug: "a directory comes back where a user removed the link", file: "mounter.go", run: "PutBackOnly",
		old: "at.Restored = !linked && err == nil", new: "at.Restored = !linked && err != nil"},
	{bug: "any link is taken for ours", file: "target.go", run: "LeavesAlone",
		old: "sameLink(text, r.destination()), ", new: "text != \"\", "},
	{bug: "a link that is not followed passes", file: "target.go", run: "NotFollowed",
		old: "	if err != nil && !isGone(at.Resolved) { // a link", new: "	if false { // a link"},
	{bug: "a directory with a folder Files is a layer", file: "layer_directory.go", run: "ThatIsNoLayer",
		old: "holds(\"Files\") && holds(\"Hives\")", new: "holds(\"Files\")"},

	// Bindings.
	{bug: "ro is not passed to the bind filter", file: "binding.go", run: "IsReadOnlyAndLookup",
		old: "r.destination(), at.ReadOnly)", new: "r.destination(), false)"},
	{bug: "a link is called read-only", file: "mounter.go", run: "CallALinkReadOnly",
		old: "		at.Bound, at.ReadOnly = mt.boot, slices.Contains(m.Options, \"ro\")\n	}\n",
		new: "		at.Bound = mt.boot\n	}\n	at.ReadOnly = slices.Contains(m.Options, \"ro\")\n"},
	{bug: "a target that is bound already is not refused at once", file: "binding.go", run: "BeforeHCSIsCalled",
		old: "len(sources) > 0 {\n		return errors.Wrapf(os.ErrExist", new: "len(sources) > 1 {\n		return errors.Wrapf(os.ErrExist"},
	{bug: "a binding of another program in the place of ours is an error", file: "binding.go", run: "LeavesAloneWhatAnotherProgram",
		old: "		if len(others) > 0 && len(others) == len(bound) {\n", new: "		if len(others) > 9 {\n"},
	{bug: "a binding that was merged with ours is taken away", file: "binding.go", run: "MergedWithOurs",
		old: "		if len(others) > 0 {\n", new: "		if len(others) > 9 {\n"},
	{bug: "a killed mount that has bound nothing unbinds", file: "mounter.go", run: "HasBoundNothing",
		old: "at.Restored || r.Volume == \"\"", new: "at.Restored"},
	{bug: "a directory with a mount in it is bound over", file: "mounter.go", run: "WithAMountInIt",
		old: "	if isEmpty(at.Resolved) {\n", new: "	if true {\n"},
	{bug: "a binding of another program goes with a failed Mount", file: "binding.go", run: "OfAnotherProgramIsRefusedAndStays",
		old: "		at.Bound = neverBound\n	}\n	if isAny", new: "	}\n	if isAny"},
	{bug: "a binding that stays is forgotten", file: "binding.go", run: "KeepsItsRecordUntil",
		old: "			err = nil // it is gone\n		}\n", new: "		}\n		_, err = isListed, nil\n"},
	{bug: "a binding that has gone keeps its record", file: "binding.go", run: "ThatHasGoneIsNoError",
		old: "			err = nil // it is gone\n", new: ""},
	{bug: "a binding that is out of reach is forgotten", file: "binding.go", run: "IsOutOfReach",
		old: "isAbsent || isNoDirectory(at.Resolved)", new: "isAbsent || !isDirectory(at.Resolved)"},
	{bug: "the filter is asked about bindings of an earlier start", file: "mounter.go", run: "NoFault/likely",
		old: "	case at.Bound == mt.boot:\n		if err := mt.unbind", new: "	case at.Bound != neverBound:\n		if err := mt.unbind"},
	{bug: "a directory that was made stays", file: "mounter.go", run: "RemovedAgain",
		old: "	if !at.Made {\n		return nil\n	}\n	err :=", new: "	if at.Made {\n		return nil\n	}\n	err :="},
	{bug: "a binding that was never made is taken away", file: "mounter.go", run: "CouldNotBeUndone",
		old: "			added.Bound, added.Made = neverBound, false\n", new: ""},
	{bug: "the volume of an earlier activation is shown", file: "layer.go", run: "EarlierActivation",
		old: "if isVolume(path) && !isReachable(path) {\n", new: "if false {\n"},
	{bug: "a stale volume proves that a layer is closed", file: "layer.go", run: "StaleVolume",
		old: "isVolume(path) && isReachable(path) {\n		return path", new: "isVolume(path) {\n		return path"},
	{bug: "a user's directory is taken for the one that Mount made", file: "target.go", run: "InThePlaceOfOneMade",
		old: "err == nil && id != at.MadeID", new: "err == nil && id == \"\""},
	{bug: "a parent that is reached through a link is hidden", file: "mounter.go", run: "WouldHideAParent",
		old: "append(needed, given, resolved)", new: "append(needed, given, resolved[:0]+given)"},
	{bug: "a live binding is mounted over", file: "mounter.go", run: "ALiveBinding",
		old: "	isPresent := at.Bound == mt.boot && ", new: "	isPresent := false && "},
	{bug: "a binding is not tried again while its volume is late", file: "binding.go", run: "IsLateForTheBindFilter",
		old: "	err := b.pause.retry(context.Background(), isLate, func", new: "	_ = isLate\n	err := b.pause.retry(context.Background(), isBusy, func"},
	{bug: "the directory of a binding is not made on the disk again", file: "binding.go", run: "WhoseDirectoryWasRemoved",
		old: "isGone(at.Resolved) && os.Mkdir", new: "false && os.Mkdir"},
	{bug: "a directory that another program uses is removed", file: "binding.go", run: "LeavesAloneWhatAnotherProgram",
		old: "at.Made, err = false, nil //", new: "err = nil //"},
	{bug: "a directory that another program uses is removed after a restart", file: "mounter.go", run: "HasBoundSomethingToStays",
		old: "	case at.Made && len(mt.boundTo(at)) > 0:\n", new: "	case at.Made && len(mt.boundTo(at)) > 9:\n"},
}

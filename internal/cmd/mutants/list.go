package main

// mutants are the bugs. Each breaks an order, an undo, a lock, a proof, a state of the record, or the format.
var mutants = []mutant{
	// The order of the steps.
	{bug: "HCS opens a layer that is on no record", file: "engine.go", run: "TestMount_RecordsEachStep",
		old: "	r, err := e.table.Create(p.LayerKey, p.TargetKey, p.Record)\n",
		new: `	opened := &table.Mount{Record: p.Record}
	if err := e.open(ctx, opened); err != nil {
		return err
	}
	r, err := e.table.Create(p.LayerKey, p.TargetKey, opened.Record)
`},
	{bug: "the link is made before the volume is on record", file: "engine.go", run: "TestMount_RecordsEachStep",
		old: `	if err := r.Save(true); err != nil {
		r.State = table.Opening
		return err
	}
	return e.link(r)
`,
		new: `	if err := e.link(r); err != nil {
		return err
	}
	return r.Save(true)
`},
	{bug: "the volume is not flushed before the link is made", file: "engine.go", run: "TestMount_RecordsEachStep",
		old: "r.Save(true)", new: "r.Save(false)"},
	{bug: "the link is removed and that is not flushed", file: "link.go", run: "FlushesTwiceForALink",
		old: "func() error { return winfs.RemoveLink(r.Resolved, destination(r)) }",
		new: `func() error {
		if isThere, err := isLinked(r); !isThere {
			return err
		}
		return os.Remove(r.Resolved)
	}`},
	{bug: "the layer is closed before it is hidden", file: "engine.go", run: "RemovesTheLinkAndThenCloses",
		old: `	hideErrs := make([]error, len(leaving))
`, new: `	hideErrs := make([]error, len(leaving))
	if isLast {
		closeErr = e.close(leaving, hideErrs)
	}
`},
	{bug: "the record goes though the layer may be open", file: "engine.go", run: "KeepsTheRecordOfALayerThatStaysOpen",
		old: "case closeErr != nil && e.mayBeOpen(r):", new: "case false:"},

	// The undo.
	{bug: "what a failed Open has done stays", file: "internal/hcs/open.go", pkg: "internal/hcs", run: "TestOpen_DoesNotTryAFinalFailureAgain",
		old: "if closeErr := l.Close(layer);", new: "if closeErr := error(nil);"},
	{bug: "an undo that failed counts as done", file: "internal/hcs/open.go", pkg: "internal/hcs", run: "TestOpen_ReportsAnUndoThatFailed",
		old: "return false, true, fmt.Errorf(", new: "return false, false, fmt.Errorf("},
	{bug: "a failed Mount is not undone", file: "engine.go", run: "TestMount_FailsIfTheLinkDoesNotShow",
		old: "		closeErr, hideErr := e.leave(l, r)\n		return withUndo(err,", new: "		var closeErr, hideErr error\n		return withUndo(err,"},

	// Proofs that a layer is open or closed.
	{bug: "a layer that other code has open is opened", file: "internal/hcs/open.go", pkg: "internal/hcs", run: "TestOpen_LeavesOpenWhatOtherCode",
		old: "	if volume != \"\" {\n", new: "	if false {\n"},
	{bug: "0x20 is undone, and closes the layer of other code", file: "internal/hcs/open.go", pkg: "internal/hcs", run: "TestOpen_LeavesOpenWhatOtherCode",
		old: "mayBeOpen = !errors.Is(err, ErrSharingViolation) &&", new: "mayBeOpen = true &&"},
	{bug: "what HCS says proves that a layer is closed", file: "internal/hcs/close.go", pkg: "internal/hcs", run: "TestClose_SuccessProvesNothing",
		old: "	if !IsVolume(layer.Volume) {", new: "	if true {"},
	{bug: "a volume that another layer has got keeps a layer on record", file: "internal/hcs/close.go", pkg: "internal/hcs", run: "TestClose_LeavesAnotherLayerOpen",
		old: "return !winpath.Equal(now, layer.Volume)", new: "return false && !winpath.Equal(now, layer.Volume)"},
	{bug: "a layer that was closed and that other code has opened again is closed", file: "internal/hcs/close.go", pkg: "internal/hcs", run: "TestClose_LeavesOpenWhatOtherCode",
		old: "		return nil // it is closed already", new: "		_ = 0 // it is closed already"},
	{bug: "a volume that can be reached proves that a layer is open", file: "internal/hcs/hcs.go", run: "TestMount_NeverShowsTheVolumeOfAnotherLayer",
		old: "	// Other code may have closed the layer, and", new: "	return true, nil\n	// Other code may have closed the layer, and"},
	{bug: "a volume that is late is not waited for", file: "internal/hcs/open.go", pkg: "internal/hcs", run: "TestOpen_WaitsForALateVolume",
		old: "return refusal == nil || winfs.IsAny(refusal, transientMountPath...)", new: "return false"},
	{bug: "the volume of an earlier activation is shown", file: "internal/hcs/open.go", pkg: "internal/hcs", run: "TestOpen_TheVolumeOfAnEarlierActivationDoesNotCount",
		old: "case IsVolume(path) && !IsReachable(path):", new: "case false:"},

	// The states of a record, and several mounts of a layer.
	{bug: "a layer is closed though another target shows it", file: "engine.go", run: "TestMount_OpensALayerOnceForAllItsTargets",
		old: " && !slices.ContainsFunc(others, e.needsLayer)", new: " && (true || e.needsLayer(nil))"},
	{bug: "a killed mount keeps a layer open", file: "engine.go", run: "TestUnmount_ClosesALayerWithTheLastTargetThatShowsIt",
		old: "		leaving, others = append(leaving, others...), nil", new: "		_, others = append(leaving, others...), nil"},
	{bug: "a layer that is half open is shown", file: "engine.go", run: "TestMount_OpensALayerAfreshThatWasLeftHalfOpen",
		old: "		if r.State != table.Shown || e.table.IsStale(r.Name) {\n			continue\n", new: "		if e.table.IsStale(r.Name) {\n			continue\n"},
	{bug: "HCS is called for what a restart has left", file: "engine.go", run: "TestUnmount_CleansUpWithoutHCSAfterARestart",
		old: "return r.State != table.Closed && !e.table.IsStale(r.Name)", new: "return r.State != table.Closed"},
	{bug: "a layer that is on record as closed is closed again", file: "engine.go", run: "TestUnmount_ClosesALayerWhoseTargetCannotBeLookedAt",
		old: "return r.State != table.Closed && !e.table.IsStale(r.Name)", new: "return !e.table.IsStale(r.Name)"},
	{bug: "a target that cannot be cleared keeps its layer open", file: "engine.go", run: "TestUnmount_ClosesALayerWhoseTargetCannotBeLookedAt",
		old: "	if isLast {\n		closeErr", new: "	if isLast && stderrors.Join(hideErrs...) == nil {\n		closeErr"},
	{bug: "a directory comes back where somebody has removed the link", file: "engine.go", run: "TestUnmount_PutsADirectoryBackOnly",
		old: "r.Directory = isThere || err != nil", new: "r.Directory = isThere || err == nil"},
	{bug: "a directory does not come back after a kill", file: "engine.go", run: "TestMount_KilledAtAnyStep",
		old: "if r.State == table.Shown && r.Directory && !r.Binding", new: "if r.Directory && !r.Binding"},
	{bug: "a link is removed and that Unmount has begun is not on record", file: "engine.go", run: "TestMount_KilledAtAnyStep",
		old: "		r.State = table.Leaving\n		saveErr = r.Save(false)\n", new: "		r.State = table.Leaving\n"},

	// What is at a target.
	{bug: "any link is taken for ours", file: "link.go", run: "TestUnmount_LeavesAloneWhatSomebodyPut",
		old: "	err := winfs.WhileBusy(e.pause, func() error { return winfs.RemoveLink(r.Resolved, destination(r)) })",
		new: "	text, _ := winfs.ReadLink(r.Resolved)\n	err := winfs.WhileBusy(e.pause, func() error { return winfs.RemoveLink(r.Resolved, text) })"},
	{bug: "a link that does not show the layer passes", file: "link.go", run: "TestMount_FailsIfTheLinkDoesNotShow",
		old: "	return errors.Wrapf(err, \"link to", new: "	err = nil\n	return errors.Wrapf(err, \"link to"},
	{bug: "HCS gets the path of a link to the layer", file: "target.go", run: "TestMount_PassesToHCSTheLayerThatALinkLeadsTo",
		old: "Dir: layerDir(source, name)}", new: "Dir: source}"},
	{bug: "a layer is mounted in the mount table", file: "target.go", run: "TestMount_RefusesATargetInTheTable",
		old: "if winpath.Contains(tableDir, p.Resolved) {", new: "if false {"},
	{bug: "what is mounted in a mounted layer is not below", file: "below.go", run: "TestUnmountRecursive_FindsWhatIsMountedByAnotherTarget",
		old: "if !isThere || slices.Contains(via, outer) {", new: "if true || !isThere || slices.Contains(via, outer) {"},
	{bug: "the outermost mount goes first", file: "below.go", run: "TestUnmountRecursive_UnmountsTheDeepestFirst",
		old: "return depth[b] - depth[a]", new: "return depth[a] - depth[b]"},
	{bug: "the outermost binding goes first", file: "engine.go", run: "TestUnmount_RemovesTheDeepestBinding",
		old: "return len(b.Resolved) - len(a.Resolved)", new: "return len(a.Resolved) - len(b.Resolved)"},

	// Bindings.
	{bug: "the bind filter is believed that it has removed a binding", file: "binding.go", run: "TestUnmount_DoesNotBelieveARemovalThatIsNotSeen",
		old: "		isThere, lookErr = e.findsLayer(r)\n", new: "		isThere, lookErr = false, err\n"},
	{bug: "what another program has bound in the place of ours is unbound", file: "binding.go", run: "BoundInPlaceOfTheLayer",
		old: "case len(others) > 0:", new: "case len(others) > 9:"},
	{bug: "what another program has bound beside ours is unbound", file: "binding.go", run: "BoundBesideTheLayer",
		old: "case len(others) > 0 && len(others) < len(sources):", new: "case false:"},
	{bug: "what was bound since a restart is unbound", file: "binding.go", run: "TestUnmount_DoesNotUnbindWhatWasBoundBeforeARestart",
		old: "case e.table.IsStale(r.Name), e.filter.Find() != nil:", new: "case e.filter.Find() != nil:"},
	{bug: "a binding of another program goes with a failed Mount", file: "binding.go", run: "TestMount_LeavesABindingOfTheSameLayer|TestMount_UndoesABindThatFails",
		old: "lookErr == nil && found == r.Hidden && !e.isListed(r)", new: "lookErr == nil && found != r.Hidden"},
	{bug: "a directory of a user is taken for the one that Mount made", file: "binding.go", run: "TestUnmount_LeavesADirectoryThatAUserPut",
		old: "found != r.Hidden", new: "found == \"\""},
	{bug: "the root of a binding that was removed is not made again", file: "binding.go", run: "TestUnmount_RemovesABindingWhoseDirectoryWasRemoved",
		old: "return os.MkdirAll(r.Resolved, 0o755)", new: "return nil"},
	{bug: "a binding has no stream", file: "containerd.go", run: "TestMount_LeavesTheSourceOfALayer",
		old: "return os.WriteFile(stream, []byte(r.Source), 0o666)", new: "return nil"},
	{bug: "the stream goes with the first of two bindings", file: "engine.go", run: "TestUnmount_OfOneBindingLeavesTheStream",
		old: "if r.Binding && !isBound {", new: "if r.Binding || isBound {"},
	{bug: "the stream of another layer is removed", file: "containerd.go", run: "TestUnmount_LeavesTheStreamOfAnotherLayer",
		old: "table.KeyOf(name) == r.LayerKey", new: "table.KeyOf(name) != \"\""},
	{bug: "a copy of a layer's directory counts as bound", file: "containerd.go", run: "TestUnmount_LeavesADirectoryThatOnlyHasTheStream",
		old: "err != nil || id != found {\n\t\treturn false, err", new: "err != nil || id != found {\n\t\treturn true, err"},
	{bug: "the stream of a layer that containerd has mounted since a restart is removed", file: "containerd.go", run: "TestUnmount_OfAStaleRecordLeavesTheStream",
		old: "r.Volume == \"\" || r.Type == bindType || e.table.IsStale(r.Name)", new: "r.Volume == \"\" || r.Type == bindType"},
	{bug: "a binding that is gone keeps a layer open", file: "engine.go", run: "TestUnmount_ClosesALayerWhoseOtherTarget",
		old: "(!r.Binding || e.mayBeShown(r))", new: "(!r.Binding || true || e.mayBeShown(r))"},
	{bug: "a layer counts as closed since its volume of an earlier activation is gone", file: "engine.go", run: "TestUnmount_ClosesTheVolumeThat",
		old: " || e.isNewer(r, layer.Volume)", new: " || false && e.isNewer(r, layer.Volume)"},
	{bug: "a layer is closed under another binding of containerd's", file: "containerd.go", run: "TestUnmount_LeavesALayerThatContainerdShowsElsewhere",
		old: "			others = append(others, p)", new: "			_ = others"},
	{bug: "a plain directory is closed as a layer", file: "engine.go", run: "TestMount_BindShows|TestMount_BindOfALayersDirectory",
		old: " && r.Type != bindType\n", new: "\n"},
	{bug: "a chain of mounts is taken apart from its beginning", file: "below.go", run: "TestUnmountRecursive_TakesAChainApart",
		old: "!isDone[r] && isFirst(r, outer)", new: "!isDone[r] && isFirst(outer, r)"},

	// The locks.
	{bug: "two Mounts have the same target", file: "engine.go", run: "TestMount_OfTwoAtATarget",
		old: "	defer unlockTarget()\n", new: "	unlockTarget()\n"},
	{bug: "Mount does not hold the lock of the layer", file: "engine.go", run: "TestMount_InManyGoroutines",
		old: "	defer l.unlock()\n	if err := e.shareLayer(", new: "	l.unlockFile()\n	if err := e.shareLayer("},
	{bug: "a layer is changed without its lock", file: "engine.go", run: "TestUnmount_OfALayerThatIsMountedMeanwhile",
		old: "unlock, err := e.table.LockLayer(key)", new: "unlock, err := func() {}, error(nil)"},
	{bug: "each goroutine that waits for a lock keeps a thread", file: "internal/table/table.go", pkg: "internal/table", run: "TestLock_WaitingKeepsNoThread",
		old: "unlockHere := t.locks.lock(name)", new: "unlockHere := func() {}"},
	{bug: "processes do not exclude each other", file: "internal/table/lock_windows.go", pkg: "internal/table", run: "TestLock_OneHasItAtATime", wine: true,
		old: "windows.LOCKFILE_EXCLUSIVE_LOCK|flags", new: "flags"},

	// The table.
	{bug: "the checksum does not cover the version", file: "internal/table/record.go", pkg: "internal/table", run: "TestRecord_LineWithAnotherChecksum",
		old: "crc32.Update(crc32.ChecksumIEEE([]byte(version)), crc32.IEEETable, text)", new: "crc32.ChecksumIEEE(text)"},
	{bug: "a line that was torn counts", file: "internal/table/record.go", pkg: "internal/table", run: "TestRecord_LastWholeLineCounts",
		old: "bytes.Split(data[:size], ", new: "bytes.Split(data, "},
	{bug: "a record that could not be written counts", file: "internal/table/mount.go", pkg: "internal/table", run: "TestSave_CutsOff",
		old: "m.file.Truncate(m.size)", new: "nil"},
	{bug: "a record of an untrusted user counts", file: "internal/winfs/private_windows.go", pkg: "internal/table", run: "TestLoad_FileOfAnUntrustedUser", wine: true,
		old: "	if disposition != windows.CREATE_NEW {\n", new: "	if false {\n"},
	{bug: "an untrusted user keeps the lock file", file: "internal/table/lock_windows.go", pkg: "internal/table", run: "TestTable_LockOfAnUntrustedUser", wine: true,
		old: "	file, err := winfs.OpenPrivate(path, os.O_CREATE)\n", new: "	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)\n"},
}

output "file_system_id" {
  value = aws_efs_file_system.snapshots.id
}

output "mount" {
  description = "What user-data.sh mounts: file system and access point."
  value       = "${aws_efs_file_system.snapshots.id}:${aws_efs_access_point.snapshots.id}"
  # A mount before the targets are there fails.
  depends_on = [aws_efs_mount_target.zone]
}

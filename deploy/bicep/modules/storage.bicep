// The blob container for checkpoints, leases and dead letters, and the daemon's role on it.

@description('Region of the account.')
param location string

@description('Name of the account, which is part of its host name.')
@minLength(3)
@maxLength(24)
param accountName string

@description('Name of the blob container.')
@minLength(3)
@maxLength(63)
param containerName string

@description('Redundancy. After the retention of the events, dead letters are stored nowhere else.')
@allowed([
  'Standard_LRS'
  'Standard_ZRS'
  'Standard_GRS'
  'Standard_GZRS'
])
param skuName string

@description('Whether the account allows access from public networks.')
@allowed([
  'Enabled'
  'Disabled'
])
param publicNetworkAccess string

@description('Object id of the daemon\'s identity.')
param principalId string

@description('Tags of the account.')
param tags object

var roles = loadJsonContent('../roles.json')

resource account 'Microsoft.Storage/storageAccounts@2024-01-01' = {
  name: accountName
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: skuName
  }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    // The daemon uses tokens. This also disables every SAS that is signed with an account key.
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    publicNetworkAccess: publicNetworkAccess
    supportsHttpsTrafficOnly: true
    networkAcls: {
      bypass: 'None'
      defaultAction: publicNetworkAccess == 'Enabled' ? 'Allow' : 'Deny'
    }
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2024-01-01' = {
  parent: account
  name: 'default'
  properties: {
    // Allows to restore a container that was deleted by mistake. With a new empty container, every partition would begin again.
    containerDeleteRetentionPolicy: {
      enabled: true
      days: 14
    }
    // Disabled for single blobs: checkpoints and leases are overwritten every few seconds, and each old version would be stored and billed.
    deleteRetentionPolicy: {
      enabled: false
    }
    isVersioningEnabled: false
  }
}

resource container 'Microsoft.Storage/storageAccounts/blobServices/containers@2024-01-01' = {
  parent: blobs
  name: containerName
  properties: {
    publicAccess: 'None'
  }
}

resource contributor 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: container
  name: guid(container.id, principalId, roles['Storage Blob Data Contributor'])
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles['Storage Blob Data Contributor'])
  }
}

@description('URL of the container.')
output containerUrl string = '${account.properties.primaryEndpoints.blob}${container.name}'

// The blob container for checkpoints, leases and dead letters, and the daemon's right to it.

@description('Region of the account.')
param location string

@description('Name of the account; a part of its host name.')
@minLength(3)
@maxLength(24)
param accountName string

@description('Name of the blob container.')
@minLength(3)
@maxLength(63)
param containerName string

@description('Redundancy. Dead letters exist nowhere else in the end.')
@allowed([
  'Standard_LRS'
  'Standard_ZRS'
  'Standard_GRS'
  'Standard_GZRS'
])
param skuName string

@description('Whether the account can be reached from outside private endpoints.')
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
    // The daemon comes with a token. With this, no SAS works either.
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
    // A container that is deleted by mistake can be restored. An empty one instead would mean that every partition begins anew.
    containerDeleteRetentionPolicy: {
      enabled: true
      days: 14
    }
    // Not for single blobs: checkpoints and leases are written again every few seconds, and each old state would be kept and paid for.
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
